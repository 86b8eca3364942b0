"""What scenarios share: models, servers over them, probes of the limit and load processes. Knows no scenario.

Everything is made when it is first asked for, and ended with the stand.
"""

import contextlib
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeVar

from bench import reference_models
from bench.best import serve_fastest
from bench.connection import FIRST_SEED, Requests
from bench.limit import Limit, Raw
from bench.load import Load, LoadProcess, closed_loop
from bench.server import Server, running
from models.publish import publish
from models.repository import ZOO, Repository

Kind = Literal["plain", "cached", "stocked", "best"]

SHIPPED = "fashion-mnist"
MODELS = (*reference_models.WIDTHS, SHIPPED)
GENERATED = "genserve_images_generated_total"
STOCK_IMAGES = 64
SEEDS = 1_000_000  # that a load has to itself: more than any asks for
PLAIN = {"GENSERVE_ALLOW_UNJUDGED": "1", "GENSERVE_CACHE_BYTES": "0", "GENSERVE_STOCK_IMAGES": "0"}
CACHED = {"GENSERVE_ALLOW_UNJUDGED": "1", "GENSERVE_STOCK_IMAGES": "0"}
STOCKED = {"GENSERVE_ALLOW_UNJUDGED": "1", "GENSERVE_STOCK_IMAGES": str(STOCK_IMAGES)}
SETTINGS: dict[Kind, dict[str, str]] = {"plain": PLAIN, "cached": CACHED, "stocked": STOCKED, "best": PLAIN}
T = TypeVar("T")


class Stand:
    """A context manager; within it, servers and probes are kept running.

    Args:
        folder: empty, for models and repositories.
        seconds: of each measured run.
        overrides: settings of every server besides, by environment variable.
    """

    def __init__(self, folder: Path, seconds: float, overrides: Mapping[str, str] | None = None) -> None:
        self.seconds = seconds
        self.overrides = dict(overrides or {})
        self.faults: list[str] = []  # what was not fair, in words
        self._folder = folder
        self._paths = {**reference_models.write(folder), SHIPPED: Repository(ZOO).resolve(SHIPPED).model_path}
        self._kept: dict[tuple[str, ...], Any] = {}
        self._ends = contextlib.ExitStack()
        self._next_seed = FIRST_SEED

    def __enter__(self) -> "Stand":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    # What there is.

    def limit(self, model: str) -> Limit:
        """The yardstick of a model: its fp32 file."""
        return self._keep(("limit", model), lambda: contextlib.closing(Limit(self._paths[model])))

    def raw(self, model: str) -> Raw:
        """One image of it without a server."""
        return self._keep(("raw", model), lambda: contextlib.nullcontext(Raw(self._paths[model])))

    def load(self, name: str = "first") -> LoadProcess:
        """A process that loads; another for each name."""
        return self._keep(("load", name), lambda: contextlib.closing(LoadProcess()))

    def server(self, kind: Kind, model: str) -> Server:
        """A server of one model, kept running."""
        return self._keep(("server", kind, model), lambda: self.new_server(kind, model))

    def new_server(self, kind: Kind, model: str) -> AbstractContextManager[Server]:
        """A server of one model, for the caller to end."""
        return running(self._repository(kind, model), {**SETTINGS[kind], **self.overrides})

    def constant_server(self, size: int) -> Server:
        """A server that answers so many bytes to everything."""
        command = ("-m", "bench.constant_server", str(size))
        return self._keep(("constant", str(size)), lambda: running(self._folder, {}, command))

    # What is done with it.

    def seeds(self) -> int:
        """The first of SEEDS seeds that no other load asks for."""
        first = self._next_seed
        self._next_seed += SEEDS
        return first

    def requests(self, model: str, num_images: int = 1, **more: Any) -> Requests:  # noqa: ANN401 fields of Requests
        """Requests of images that no other load asks for."""
        count = f',"num_images":{num_images}' if num_images > 1 else ""
        body = f'{{"model":"{model}"{count},"seed":%d}}'
        return Requests(body, first_seed=self.seeds(), step=num_images, **more)

    def drive(self, server: Server, model: str, *, num_images: int = 1, connections: int, seconds: float = 0) -> Load:
        """A closed loop of images that are asked for once; what the server generated must be what it answered."""
        requests = self.requests(model, num_images)
        with self.counted(server, f"{model}, n={num_images}, {connections} connections") as images:
            load = self.load().run(
                closed_loop, server.port, requests, connections=connections, seconds=seconds or self.seconds
            )
            images.append(load.answered * num_images)
        self.check(not load.failures, f"{model}, n={num_images}, {connections} connections: {load.failures}")
        return load

    @contextlib.contextmanager
    def counted(self, server: Server, what: str) -> Iterator[list[int]]:
        """The block puts the images that it was answered into the list; the server must have generated as many."""
        before, images = server.counter(GENERATED), list[int]()
        yield images
        expected = sum(images)
        generated = server.settled(GENERATED, before + expected) - before
        self.check(generated == expected, f"{what}: {generated:.0f} images generated, {expected} answered")

    def check(self, fair: bool, what: str) -> None:
        """Note what was not fair."""
        if not fair:
            self.faults.append(what)

    def around(self, model: str, run: Callable[[], T]) -> tuple[T, float]:
        """What a run gave, and the limit: the mean of the probes just before and just after it, images/s."""
        before = self.limit(model)()
        result = run()
        return result, (before + self.limit(model)()) / 2

    def _keep(self, key: tuple[str, ...], make: Callable[[], AbstractContextManager[T]]) -> T:
        if key not in self._kept:
            self._kept[key] = self._ends.enter_context(make())
        kept: T = self._kept[key]
        return kept

    def _repository(self, kind: Kind, model: str) -> Path:
        """A repository that holds this model alone; for "best" with the variant that serves here best."""
        if kind != "best":
            return self._keep(("repository", model), lambda: contextlib.nullcontext(self._publish(model)))
        return self._keep(("best", model), lambda: contextlib.nullcontext(self._optimize(model)))

    def _optimize(self, model: str) -> Path:
        root = self._publish(model)
        serve_fastest(root, model)
        return root

    def _publish(self, model: str) -> Path:
        """A new repository with one version of one model."""
        root = Path(tempfile.mkdtemp(prefix=f"{model}-", dir=self._folder))
        if model == SHIPPED:
            shutil.copytree(ZOO / model, root / model)
        else:
            publish(Repository(root), model, self._paths[model].read_bytes(), prior="normal", why="benchmark")
        return root


def body_bytes(server: Server, model: str) -> int:
    """The length of one image's answer."""
    body = f'{{"model":"{model}","seed":{FIRST_SEED}}}'.encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/sample", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return len(answer.read())
