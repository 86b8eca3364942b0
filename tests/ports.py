"""Ports for servers that tests start: not of the range that clients get theirs from, and other ones in each process."""

import contextlib
import itertools
import os
import socket

_FIRST, _EACH = 20_000, 2_000  # below 32768, where Linux's ephemeral ports begin
_NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 6
_PORTS = itertools.cycle(range(_FIRST + _EACH * _NUMBER, _FIRST + _EACH * (_NUMBER + 1)))


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on, and that no other test is given soon."""
    for port in _PORTS:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports go round")
