"""Answers every POST /sample with the same bytes, through genserve's own protocol and front. Knows no models.

    GENSERVE_PORT=8001 python -m bench.constant_server BYTES

What a cache hit is compared with: all that HTTP costs, and no model, cache or sample.
"""

import os
import socket
import sys
from typing import cast

import uvicorn
from litestar import Litestar, asgi, get
from litestar.types import Receive as LitestarReceive
from litestar.types import Scope as LitestarScope
from litestar.types import Send as LitestarSend

from serving.asgi import INCOMING, ASGIApp, Reply, Scope, Send
from serving.metrics import Metrics
from serving.middleware import Front
from serving.protocol import GuardedProtocol
from serving.requests import SampleRequest, decode_body

HEADERS = [(b"content-type", b"image/png")]


def build(size: int) -> ASGIApp:
    """The application; its answers have so many bytes."""
    body = os.urandom(size)

    @asgi("/sample", copy_scope=False)
    async def sample(scope: LitestarScope, receive: LitestarReceive, send: LitestarSend) -> None:
        decode_body(cast(Scope, scope)[INCOMING].body, SampleRequest)
        await Reply(200, HEADERS, body).send(cast(Send, send))

    @get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    app = Litestar([sample, ready], openapi_config=None, logging_config=None)
    return Front(app, paths=["/sample", "/health/ready"], metrics=Metrics(), draining=lambda: False)


def main() -> None:
    """Serve until SIGTERM."""
    import uvloop

    listening = socket.create_server(("127.0.0.1", int(os.environ["GENSERVE_PORT"])), backlog=2048)
    config = uvicorn.Config(
        build(int(sys.argv[1])), http=GuardedProtocol, ws="none", loop="none", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    uvloop.run(server.serve([listening]))


if __name__ == "__main__":
    main()
