"""Where a server's time goes under a load, by py-spy: shares by thread and by function. Knows no targets.

    python -m bench.profile_server [--model small] [--connections 64] [--num-images 1] [--cached] [--seconds 10]

A thread is sampled while it is on a processor; time inside ONNX Runtime or an encoder counts for the Python function
that called it. py-spy is not among the project's dependencies: pip install py-spy.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from bench.load import closed_loop
from bench.machine import describe
from bench.scenarios import DISTINCT
from bench.stand import MODELS, Stand

RATE = 250  # samples a second
LINE_NUMBER = re.compile(r":\d+\)$")
Stack = tuple[str, ...]  # the thread, then its functions from the outermost to the innermost


def main() -> None:
    """Load, sample, print."""
    parser = argparse.ArgumentParser(description="Where a server's time goes under a load.")
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--num-images", type=int, default=1)
    parser.add_argument("--cached", action="store_true", help="ask for the same images again and again")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--top", type=int, default=30, help="functions to list")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stand(Path(folder), args.seconds) as stand:
        server = stand.server("cached" if args.cached else "plain", args.model)
        requests = stand.requests(args.model, args.num_images, distinct=DISTINCT if args.cached else None)
        wait = stand.load().start(
            closed_loop, server.port, requests, connections=args.connections, seconds=2 * args.seconds + 2
        )
        busy = record(server.pid, args.seconds, Path(folder) / "busy.txt")
        locked = record(server.pid, args.seconds, Path(folder) / "locked.txt", "--gil")
        load = wait()
    samples = RATE * args.seconds
    print(describe())
    print(f"{load.rate:.0f} requests/s while sampled; of the load {1e6 * load.cpu_seconds / load.requests:.0f} us each")
    show("thread on a processor, share of the time", by(busy, lambda stack: stack[:1]), samples, 12)
    show("thread that holds the lock of Python, share of the time", by(locked, lambda stack: stack[:1]), samples, 12)
    show("function alone, share of the time", by(busy, lambda stack: stack[-1:]), samples, args.top)
    show("function with all that it calls, share of the time", by(busy, lambda stack: stack[1:]), samples, args.top)


def record(pid: int, seconds: float, path: Path, *options: str) -> dict[Stack, int]:
    """Samples by stack."""
    beside = Path(sys.executable).parent  # where pip puts it, whether or not this environment is activated
    program = shutil.which("py-spy", path=str(beside)) or "py-spy"
    command = [program, "record", "--pid", str(pid), "--duration", f"{seconds:.0f}", "--rate", str(RATE)]
    command += ["--format", "raw", "--threads", "--nonblocking", "--output", str(path), *options]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stacks: Counter[Stack] = Counter()
    for line in path.read_text().splitlines():
        frames, _, count = line.rpartition(" ")
        thread, *functions = frames.split(";")
        stacks[thread.partition(": ")[2], *(LINE_NUMBER.sub(")", function) for function in functions)] += int(count)
    return stacks


def by(stacks: dict[Stack, int], keys: Callable[[Stack], Iterable[str]]) -> Counter[str]:
    """Samples by key; a stack counts once for each of its keys."""
    counts: Counter[str] = Counter()
    for stack, count in stacks.items():
        counts.update(dict.fromkeys(keys(stack), count))
    return counts


def show(title: str, counts: Counter[str], samples: float, top: int) -> None:
    """Print the largest."""
    print(f"\n{title}")
    for key, count in counts.most_common(top):
        print(f"{100 * count / samples:7.1f} %  {key}")


if __name__ == "__main__":
    main()
