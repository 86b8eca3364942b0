"""Workers are kept whatever fails: with processes that obey; tests/serving/test_workers.py runs real ones."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import threading

import msgspec
import pytest
import structlog

from serving import supervisor as module
from serving.backend import create_backend
from serving.listening import listen
from serving.supervisor import Supervisor
from tests.serving.kit import until

WORKERS = 2
FAILED = "a worker could not be run and is tried again"
NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files")


class Process:
    """Runs until it is told to end, or killed; it has its standard input open for as long."""

    def __init__(self, stdin):
        self.pid = 1
        self.kills = 0
        self.stdin = socket.socket(fileno=os.dup(stdin))
        self._over = threading.Event()
        self._status = None

    def end(self, status=0):
        self._status = status
        self._over.set()
        self.stdin.close()

    def kill(self):
        self.kills += 1
        if not self._over.is_set():
            self.end(-9)

    def wait(self):
        assert self._over.wait(20)
        return self._status


class Machine:
    """Starts processes; of `faults`, one is raised at each attempt instead."""

    def __init__(self, *faults):
        self.faults = list(faults)
        self.processes = []
        self.attempts = 0

    def start(self, command, *, stdin, pass_fds, env):
        self.attempts += 1
        if self.faults:
            raise self.faults.pop(0)
        self.processes.append(Process(stdin))
        return self.processes[-1]


@pytest.fixture
def keep(zoo, settings, tmp_path, monkeypatch):
    """Supervises on a machine, and stops in good order at the end."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 0.004)

    @contextlib.asynccontextmanager
    async def kept(machine):
        monkeypatch.setattr(subprocess, "Popen", machine.start)
        several = msgspec.structs.replace(settings, workers=WORKERS)
        backend = create_backend(several, zoo)
        async with backend.running():
            with listen("127.0.0.1", 0, "x") as sock, structlog.testing.capture_logs() as lines:
                supervisor = Supervisor(backend, several, zoo, listening=sock.fileno(), folder=tmp_path)
                supervisor.start()
                try:
                    yield supervisor, lines
                finally:
                    supervisor.stop(force=True)
                    async with asyncio.timeout(20):
                        await supervisor.ended()
                    supervisor.close()

    return kept


def told(lines, event):
    return [line for line in lines if line["event"] == event]


async def test_a_worker_that_cannot_be_started_is_tried_again_until_it_can(keep):
    """Each failure is told, with a pause that grows; neither slot is lost, and nothing counts as a restart."""
    machine = Machine(*[NO_DESCRIPTOR] * 10)
    async with keep(machine) as (supervisor, lines):
        await until(lambda: len(machine.processes) == WORKERS)
        failures = told(lines, FAILED)
        assert len(failures) == 10
        assert all("Too many open files" in line["error"] and line["log_level"] == "error" for line in failures)
        pauses = [line["pause_seconds"] for line in failures if line["worker"] == 0]
        assert pauses == [0.001, 0.002, 0.004, 0.004, 0.004, 0.004][: len(pauses)]
        assert supervisor._metrics.registry.get_sample_value("genserve_worker_restarts_total") == 0
    assert [process.kills for process in machine.processes] == [1, 1]


async def test_stopping_while_no_worker_can_be_started_ends_well(keep, monkeypatch):
    """At once, though the next try would be far away; there is nobody to wait for."""
    monkeypatch.setattr(module, "FIRST_PAUSE_SECONDS", 600.0)
    monkeypatch.setattr(module, "LONGEST_PAUSE_SECONDS", 600.0)
    machine = Machine(*[NO_DESCRIPTOR] * 1000)
    async with keep(machine) as (supervisor, lines):
        await until(lambda: len(told(lines, FAILED)) == WORKERS)
        supervisor.stop(force=False)
        async with asyncio.timeout(20):
            await supervisor.ended()
    assert machine.attempts == WORKERS
    assert all(keeper.exception() is None for keeper in supervisor._keepers)


async def test_a_worker_that_ended_before_it_knew_its_task_is_a_worker_that_ended(keep, monkeypatch):
    """Its standard input is broken: that is no fault of the server."""
    begin = Process.__init__

    def die(self, stdin):
        begin(self, stdin)
        monkeypatch.setattr(Process, "__init__", begin)
        self.end(3)

    monkeypatch.setattr(Process, "__init__", die)
    machine = Machine()
    async with keep(machine) as (_, lines):
        await until(lambda: len(machine.processes) == WORKERS + 1)
        assert [line["status"] for line in told(lines, "a worker ended and is started again")] == [3]
        assert not told(lines, FAILED)


async def test_whatever_fails_the_slot_is_kept_and_no_process_stays_beside_its_successor(keep, monkeypatch):
    """A fault of the code is told with its traceback."""
    attend, faults = module._attend, [ValueError("a fault of the code")]

    async def fail_once(end, task):
        if faults:
            raise faults.pop()
        await attend(end, task)

    monkeypatch.setattr(module, "_attend", fail_once)
    machine = Machine()
    async with keep(machine) as (_, lines):
        await until(lambda: len(machine.processes) == WORKERS + 1)
        assert [process.kills for process in machine.processes] == [1, 0, 0]
        (fault,) = told(lines, FAILED)
        assert isinstance(fault["exc_info"], ValueError)


async def test_a_keeper_that_fails_is_seen(keep, monkeypatch):
    """What should not happen, at once and not only when the server ends."""

    async def fail(self):
        raise ValueError("a fault of the code")

    monkeypatch.setattr(Supervisor, "_watch", fail)
    async with keep(Machine()) as (_, lines):
        await until(lambda: told(lines, "workers are no longer kept as they should be: restart the server"))
