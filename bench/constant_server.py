"""Answers every request with the same bytes, through genserve's own protocol, front and decoding. Knows no models.

    GENSERVE_PORT=8001 python -m bench.constant_server BYTES

What a cache hit is compared with: all that HTTP costs, and no model, cache or sample. It parses each request, where
a server that keeps answers remembers bytes that came before (serving.known).
"""

import os
import socket
import sys

import uvicorn
import uvloop

from serving.asgi import Incoming, Receive, Reply, Scope, Send
from serving.calls import Done, Leave, nothing
from serving.fast_path import FastProtocol
from serving.metrics import Metrics
from serving.middleware import Front
from serving.requests import SampleRequest, decode_body


class Constant:
    """A route (serving.asgi.Route) that answers so many bytes."""

    path = "/sample"

    def __init__(self, size: int) -> None:
        self._reply = Reply(200, [(b"content-type", b"image/png")], os.urandom(size))

    def at_once(self, request: Incoming) -> Reply:
        """Decode what was asked, and answer what always is."""
        decode_body(request.body, SampleRequest)
        return self._reply

    def begin(self, request: Incoming, done: Done[Reply]) -> Leave:
        """The same."""
        done(self.at_once(request))
        return nothing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The same, by ASGI."""
        await self._reply.send(send)


def main() -> None:
    """Serve until a signal comes."""
    listening = socket.create_server(("127.0.0.1", int(os.environ["GENSERVE_PORT"])), backlog=2048)
    constant = Constant(int(sys.argv[1]))
    config = uvicorn.Config(
        Front(constant, hot={constant.path: constant}, metrics=Metrics(), draining=lambda: False),
        http=FastProtocol,
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
