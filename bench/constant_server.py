"""Answers every request with the same bytes, through genserve's own protocol, front and decoding. Knows no models.

    GENSERVE_PORT=8001 python -m bench.constant_server BYTES

What a cache hit is compared with: all that HTTP costs, and no model, cache or sample.
"""

import os
import socket
import sys

import uvicorn
import uvloop

from serving.asgi import INCOMING, ASGIApp, Receive, Reply, Scope, Send
from serving.metrics import Metrics
from serving.middleware import Front
from serving.protocol import GuardedProtocol
from serving.requests import SampleRequest, decode_body


def build(size: int) -> ASGIApp:
    """The application; its answers have so many bytes."""
    reply = Reply(200, [(b"content-type", b"image/png")], os.urandom(size))

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        decode_body(scope[INCOMING].body, SampleRequest)
        await reply.send(send)

    return Front(answer, hot={"/sample": answer}, metrics=Metrics(), draining=lambda: False)


def main() -> None:
    """Serve until a signal comes."""
    listening = socket.create_server(("127.0.0.1", int(os.environ["GENSERVE_PORT"])), backlog=2048)
    config = uvicorn.Config(
        build(int(sys.argv[1])),
        http=GuardedProtocol,
        ws="none",
        loop="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    uvloop.run(uvicorn.Server(config).serve([listening]))


if __name__ == "__main__":
    main()
