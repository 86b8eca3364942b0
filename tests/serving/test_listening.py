"""A socket that several processes take connections from: evenly, and nobody waits for one that takes none."""

import asyncio

import pytest

from serving.errors import SettingsError
from serving.listening import NOBODY, Acceptor, Shares, listen, url
from tests.serving.kit import until


@pytest.fixture
def shares(tmp_path):
    """Of three processes; each number says that nobody is there."""
    path = tmp_path / "shares"
    path.write_bytes(3 * NOBODY)
    with path.open("r+b") as file:
        yield [Shares(file.fileno(), 3, own) for own in range(3)]


class Connections(set):
    """What one process has."""

    def protocol(self):
        held = self

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport
                held.add(transport)

            def connection_lost(self, exc):
                held.discard(self.transport)

        return Protocol()


def accepting(sock, share):
    held = Connections()
    return held, Acceptor(sock.dup(), held.protocol, share, lambda: len(held))


async def test_connections_that_come_at_once_are_spread_evenly(shares):
    """Over those that take any; a process that has more than another lets it go first."""
    with listen("127.0.0.1", 0, "x") as sock:
        (first, one), (second, two) = (accepting(sock, share) for share in shares[:2])
        clients = [await asyncio.open_connection(*sock.getsockname()) for _ in range(16)]
        await until(lambda: len(first) + len(second) == 16)
        assert min(len(first), len(second)) >= 6
        one.close()
        taken = len(first)
        clients += [await asyncio.open_connection(*sock.getsockname()) for _ in range(4)]
        await until(lambda: len(first) + len(second) == 20)  # though it is ahead: the other takes none
        assert len(first) == taken
        two.close()
        for _, writer in clients:
            writer.close()
        await until(lambda: not first and not second)


async def test_who_is_ahead_takes_what_nobody_else_does(shares):
    """The others may be busy: a connection waits for a moment only."""
    with listen("127.0.0.1", 0, "x") as sock:
        shares[1].set(0)  # there, but it never takes any
        held, acceptor = accepting(sock, shares[0])
        writers = [(await asyncio.open_connection(*sock.getsockname()))[1] for _ in range(3)]
        await until(lambda: len(held) == 3)
        assert shares[0].ahead
        acceptor.close()
        for writer in writers:
            writer.close()
        await until(lambda: not held)


def test_nobody_is_ahead_of_those_that_are_not_there(shares):
    """A process that has not begun, or ended, is waited for by nobody."""
    shares[0].set(5)
    assert not shares[0].ahead
    shares[2].set(4)
    assert shares[0].ahead
    assert not shares[2].ahead


def test_a_taken_port_is_named():
    """By its setting; and addresses are written as URLs."""
    with listen("127.0.0.1", 0, "x") as sock:
        host, port = sock.getsockname()
        assert url(sock) == f"http://127.0.0.1:{port}"
        with pytest.raises(SettingsError, match=f"cannot listen on {host}:{port}") as error:
            listen(host, port, "GENSERVE_PORT")
        assert error.value.field == "GENSERVE_PORT"
    with listen("::1", 0, "x") as sock:
        assert url(sock).startswith("http://[::1]:")
