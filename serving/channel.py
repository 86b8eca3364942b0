"""A ZeroMQ socket on the running event loop: messages come as calls, sending never waits. Knows no messages.

zmq.asyncio makes a future and a wake-up for each message: with 16 requests under way it carried a third as many.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import zmq

TURN_MESSAGES = 64  # received before the event loop gets its turn
# Messages that wait for a peer. A worker has no more requests than connections (serving.protocol), each with at most
# an order and its withdrawal, so that only a peer that stopped reading gets here; what is for it is dropped then.
HIGH_WATER = 32_768

Frames = Sequence[Any]  # bytes-like


class Channel:
    """One end, to be used on the event loop that it was made on.

    Args:
        socket: bound or connected; closed with the channel.
        received: called with the frames of each message, as memoryviews that keep their message alive.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", received: Callable[[list[memoryview]], None]) -> None:
        self._socket = socket
        self._received = received
        self._loop = asyncio.get_running_loop()
        self._fd = int(socket.getsockopt(zmq.FD))
        self._closed = False
        self._loop.add_reader(self._fd, self._drain)
        self._soon()  # what came before

    def send(self, frames: Frames) -> bool:
        """Hand a message over; the frames must not change any more. False where the peer is gone or does not read."""
        try:
            self._socket.send_multipart(frames, zmq.NOBLOCK, copy=False)
        except zmq.ZMQError:  # Again: its queue is full; EHOSTUNREACH: it is no peer any more
            return False
        if int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN:  # sending may swallow the file descriptor's signal
            self._soon()
        return True

    def close(self) -> None:
        """Stop; what was handed over and is not sent yet still goes out, for a moment."""
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._socket.close(linger=500)

    def _soon(self) -> None:
        self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Everything that has come: the descriptor signals only that something came since it was last empty."""
        for _ in range(TURN_MESSAGES):
            if self._closed:
                return
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            self._received([frame.buffer for frame in frames])
        self._soon()


def connect(context: "zmq.Context[zmq.Socket[bytes]]", kind: int, max_bytes: int) -> "zmq.Socket[bytes]":
    """A socket of `kind` with the bounds that both ends have; a frame above `max_bytes` ends its connection."""
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
    socket.setsockopt(zmq.RCVHWM, HIGH_WATER)
    socket.setsockopt(zmq.MAXMSGSIZE, max_bytes)
    socket.setsockopt(zmq.LINGER, 0)
    return socket
