"""What processes cost, read from /proc: time and memory of one with all its descendants. Knows no servers."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
IDLE = (3, 4)  # idle and iowait, among the numbers of the first line of /proc/stat
TIMES = slice(11, 15)  # utime, stime, cutime, cstime, among the fields of /proc/PID/stat from its state on


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    pids = [pid]
    for member in pids:  # grows while it is walked
        for children in Path(f"/proc/{member}/task").glob("*/children"):
            pids += map(int, children.read_text().split())
    return pids


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its descendants so far, ended ones included."""
    return sum(sum(map(int, _stat(member)[TIMES])) for member in family(pid)) / TICKS


def resident_bytes(pid: int) -> int:
    """Resident memory: of a process alone what it maps, of several their proportional shares together."""
    pids = family(pid)
    if len(pids) == 1:
        return _kilobytes(Path(f"/proc/{pid}/status"), "VmRSS:")
    return sum(_kilobytes(Path(f"/proc/{member}/smaps_rollup"), "Pss:") for member in pids)


def busy_seconds() -> float:
    """Time that the processors of this machine were not idle so far, all together; steal by other machines included."""
    numbers = [int(number) for number in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(number for i, number in enumerate(numbers) if i not in IDLE) / TICKS


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, or zeros where the process has just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ["0"] * 50


def _kilobytes(path: Path, key: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024
