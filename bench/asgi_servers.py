"""Which ASGI server: uvicorn against granian under one constant-answer Litestar app, interleaved.

    python -m bench.asgi_servers [--rounds 7] [--seconds 2]

Prints one table: latency and rate at 1, 16 and 64 connections (median over rounds [lowest, highest]), then whether each
notices clients that leave, ends what is in flight on SIGTERM, and cuts slow senders. Needs granian beside the project.
"""

import argparse
import asyncio
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

from litestar import Litestar, Request, Response, get

BODY = b"x" * 1024
CONNECTIONS = (1, 16, 64)
SLOW_SECONDS = 15.0
COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error"],
    "granian": ["-m", "granian", "--interface", "asgi", "--loop", "uvloop", "--no-log"],
}


@get("/constant")
async def constant() -> Response[bytes]:
    """1 KB."""
    return Response(BODY, media_type="image/png")


@get("/wait/{seconds:float}")
async def wait(request: Request[Any, Any, Any], seconds: float) -> Response[bytes]:
    """Answers after so long, or notes that the client has left."""
    leaving = asyncio.ensure_future(_left(request))
    done, _ = await asyncio.wait([leaving], timeout=seconds)
    leaving.cancel()
    if done:
        request.app.state.left += 1
    return Response(BODY, media_type="image/png")


@get("/left")
async def left(request: Request[Any, Any, Any]) -> dict[str, int]:
    """How many were noticed to leave."""
    return {"left": request.app.state.left}


async def _left(request: Request[Any, Any, Any]) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


app = Litestar([constant, wait, left], openapi_config=None, logging_config=None)
app.state.left = 0


class Run(NamedTuple):
    """One measured run."""

    rate: float  # answers a second
    p50: float  # milliseconds
    p99: float  # milliseconds


class Server:
    """One server in a process of its own."""

    def __init__(self, name: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        arguments = [*COMMANDS[name], "--host", "127.0.0.1", "--port", str(self.port), "bench.asgi_servers:app"]
        self.process = subprocess.Popen([sys.executable, *arguments])

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection; the server may still be starting."""
        for _ in range(200):
            try:
                return await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
        raise RuntimeError("the server did not start")

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(10)


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> bytes:
    """One GET on a kept connection."""
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    return await reader.readexactly(length)


async def load(server: Server, connections: int, seconds: float) -> Run:
    """A closed loop."""
    times: list[float] = []
    end = time.perf_counter() + seconds

    async def one() -> None:
        reader, writer = await server.connect()
        while (began := time.perf_counter()) < end:
            await ask(reader, writer, "/constant")
            times.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    cuts = statistics.quantiles(times, n=100)
    return Run(len(times) / seconds, 1000 * cuts[49], 1000 * cuts[98])


async def measure_leaving(server: Server) -> str:
    """20 clients leave while they wait for 3 s; how many were noticed after 1 s."""
    pairs = [await server.connect() for _ in range(20)]
    for _, writer in pairs:
        writer.write(b"GET /wait/3.0 HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await asyncio.sleep(0.5)
    for _, writer in pairs:
        writer.close()
    await asyncio.sleep(1.0)
    return (await ask(*await server.connect(), "/left")).decode()


async def measure_slow(server: Server) -> str:
    """Whether half-sent headers are cut."""
    reader, writer = await server.connect()
    writer.write(b"GET /constant HTTP/1.1\r\nhost: loc")
    began = time.perf_counter()
    try:
        await asyncio.wait_for(reader.read(), SLOW_SECONDS)
        return f"cut after {time.perf_counter() - began:.1f} s"
    except TimeoutError:
        return f"still open after {SLOW_SECONDS:.0f} s"
    finally:
        writer.close()


async def measure_drain(server: Server) -> str:
    """SIGTERM with 10 requests in flight that take 1 s more."""
    pairs = [await server.connect() for _ in range(10)]
    answers = [asyncio.ensure_future(ask(*pair, "/wait/1.5")) for pair in pairs]
    await asyncio.sleep(0.5)
    os.kill(server.process.pid, signal.SIGTERM)
    began = time.perf_counter()
    await asyncio.sleep(0.2)
    try:
        await asyncio.open_connection("127.0.0.1", server.port)
        new = "accepted"
    except OSError:
        new = "refused"
    results = await asyncio.gather(*answers, return_exceptions=True)
    status = await asyncio.to_thread(server.process.wait, 20)
    good = sum(isinstance(result, bytes) for result in results)
    return f"{good}/10 answered, new connections {new}, exit {status} after {time.perf_counter() - began:.1f} s"


def spread(values: list[float]) -> str:
    """Median [lowest, highest]."""
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


async def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0)
    arguments = parser.parse_args()
    servers = {name: Server(name) for name in COMMANDS}
    try:
        runs: dict[tuple[str, int], list[Run]] = {}
        for server in servers.values():
            (await server.connect())[1].close()
            await load(server, 4, 1.0)
        for _ in range(arguments.rounds):
            for connections in CONNECTIONS:
                for name, server in servers.items():
                    runs.setdefault((name, connections), []).append(await load(server, connections, arguments.seconds))
        print("| server | connections | answers/s | p50 ms | p99 ms |\n|---|---|---|---|---|")
        for (name, connections), these in runs.items():
            columns = (spread([run[i] for run in these]) for i in range(3))
            print(f"| {name} | {connections} |", " | ".join(columns), "|")
        for name, server in servers.items():
            print(
                f"{name}: left: {await measure_leaving(server)}; slow headers: {await measure_slow(server)}; "
                f"drain: {await measure_drain(server)}"
            )
    finally:
        for server in servers.values():
            server.stop()


if __name__ == "__main__":
    asyncio.run(main())
