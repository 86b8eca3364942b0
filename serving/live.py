"""The models that answer now: the champions, and other versions on demand. Knows nothing of HTTP, batches or caches.

A request captures its LiveModel once and keeps it to its end; a promotion is one assignment, and the old model goes
when the last request that holds it ends. The repository is only ever read.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import structlog

from models.errors import GenserveError, Invalid, LoadError, NotFound
from models.repository import Repository, Version
from serving.errors import NotReady
from serving.loading import LiveModel
from serving.references import champion_meant

PATIENCE_SECONDS = 1.0  # a version that loads within this long answers the request that asked for it
RETRY_SECONDS = 30.0  # before a version that failed to load is tried again
PREFERRED_MODEL = "fashion-mnist"  # what requests that name no model get, where it is served

log = structlog.get_logger("genserve.live")


class Wanted(NamedTuple):
    """What should answer for a name: a version, and which variant of it serves each provider."""

    version: Version
    promised: Mapping[str, str]


class LiveObserver(Protocol):
    """Whoever publishes what is served; called on the event loop."""

    def went_live(self, model: LiveModel) -> None:
        """A model now answers for its name."""
        ...

    def reloaded(self, model: LiveModel) -> None:
        """A model that answers was loaded once more, as what it made was wrong; `went_live` follows."""
        ...

    def load_failed(self, name: str) -> None:
        """A version of a name could not be loaded."""
        ...

    def changed(self, loaded: Sequence[LiveModel]) -> None:
        """What is loaded, or what is known of it, changed: all of it, on-demand versions included."""
        ...


class LiveModels:
    """Follows a repository's champions.

    Args:
        repository: where they lie.
        loader: makes a LiveModel of a version; blocking, raises GenserveError.
        observer: told of what goes live and what fails.
        default: the model of requests that name none; None for the repository's preferred or only one. It is never
            replaced by another that happens to be loaded.
        max_loaded: versions kept beside the champions.
        allow_unjudged: let the newest version answer for a name that has no champion.
        poll_seconds: between two looks at the repository.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        repository: Repository,
        *,
        loader: Callable[[Version], LiveModel],
        observer: LiveObserver,
        default: str | None = None,
        max_loaded: int = 2,
        allow_unjudged: bool = False,
        poll_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._repository = repository
        self._loader = loader
        self._observer = observer
        self._default = default
        self._max_loaded = max_loaded
        self._allow_unjudged = allow_unjudged
        self._poll_seconds = poll_seconds
        self._clock = clock
        self._champions: dict[str, LiveModel] = {}
        self._others: OrderedDict[Version, LiveModel] = OrderedDict()
        self._names: set[str] = set()  # that should answer, loaded or not
        self._unheeded: dict[str, str] = {}  # why the newest promotion of a name is not followed, as last reported
        self._usual: str | None = None  # of them, what requests that name none get
        self._failures: dict[Version, tuple[float, str]] = {}  # when to try again, and why it failed
        self._unfit: dict[str, str] = {}  # champions that must not answer here, and why
        self._loading: tuple[Version, asyncio.Task[LiveModel | None]] | None = None
        self._looked = False
        self._looking = asyncio.Lock()  # two looks at once would load a new champion twice

    @property
    def ready(self) -> bool:
        """Whether the repository has been gone through once, something can answer, and nothing must not."""
        return self._looked and bool(self._champions) and not self._unfit

    @property
    def fault(self) -> str | None:
        """Why a model must not answer here; None where all may."""
        return next(iter(self._unfit.values()), None)

    @property
    def loaded(self) -> list[LiveModel]:
        """Everything in memory, champions first."""
        return [*self._champions.values(), *self._others.values()]

    @property
    def champions(self) -> list[LiveModel]:
        """The models that answer for their names now."""
        return list(self._champions.values())

    def champion(self, name: str) -> LiveModel | None:
        """The model that answers for a name now."""
        return self._champions.get(name)

    @property
    def default_reference(self) -> str | None:
        """What requests that name no model mean; None where that cannot be said now."""
        return self._default or self._usual

    async def follow(self) -> None:
        """Look at the repository again and again, until cancelled."""
        while True:
            try:
                await self.refresh()
            except Exception:  # whatever it was, the next promotion must still be noticed
                log.exception("looking at the repository failed")
            await asyncio.sleep(self._poll_seconds)

    async def refresh(self) -> None:
        """Look at the repository once: load each new champion beside the old one, then swap; read verdicts again."""
        async with self._looking:
            await self._refresh()

    async def _refresh(self) -> None:
        for name, wanted in (await self._champion_versions()).items():
            present = self._champions.get(name)
            if present is None or (present.version, present.promised) != wanted:
                await self._go_live(name, wanted)
        await self._read_verdicts()
        if not self._looked and self._default is not None and self._default.partition("@")[0] not in self._names:
            log.error(
                "GENSERVE_DEFAULT_MODEL names no model that can answer: requests without a model get 503 until it does",
                default_model=self._default,
                models=sorted(self._names),
            )
        self._looked = True
        self._observer.changed(self.loaded)

    async def reload(self, model: LiveModel) -> LiveModel:
        """Load a champion's version once more, with all checks, and let it answer in its place; others go on meanwhile.

        Raises:
            GenserveError: it cannot be loaded; what answered still does.
        """
        name = model.version.name
        fresh = await asyncio.to_thread(self._loader, model.version)
        present = self._champions.get(name)
        if present is not None and present.generator is model.generator:  # else it was promoted away meanwhile
            self._champions[name] = fresh
            self._observer.reloaded(fresh)
            self._observer.went_live(fresh)
        return fresh

    def set_unfit(self, name: str, reason: str | None) -> None:
        """Say why a champion must not answer here, so that this server is not ready; None: it may.

        Another version that goes live for the name may answer again.
        """
        if self._unfit.get(name) == reason:
            return
        if reason is None:
            del self._unfit[name]
        else:
            self._unfit[name] = reason
        self._observer.changed(self.loaded)

    def at_hand(self, reference: str | None) -> LiveModel | None:
        """The model that a request means, where it is a champion; None for all else."""
        meant = self.default_reference if reference is None else reference
        return None if meant is None else champion_meant(self._champions, meant)

    async def get(self, reference: str | None) -> LiveModel:
        """The model that a request means.

        Args:
            reference: name, name@3 or name@champion; None for the default model.

        Raises:
            NotFound: no such model or version, or one that must not be served.
            NotReady: it is being loaded.
        """
        champion = self.at_hand(reference)
        if champion is not None:
            return champion
        if reference is None:
            return await self._default_model()
        name, at, which = reference.partition("@")
        if at and not which:
            raise NotFound(f"{reference[:64]!r} names no version after the @", field="model")
        if which == "candidate":
            raise NotFound("a candidate is not served; ask for its number", field="model")
        try:
            version = await asyncio.to_thread(self._resolve, name, which)
        except LoadError as error:  # its aliases cannot be read
            raise NotReady(error.detail, retry_after_seconds=self._poll_seconds, field="model") from error
        if which in ("", "champion"):  # known, but not loaded
            again, why = self._failures.get(version, (0.0, "it is being loaded"))
            later = max(again - self._clock(), self._poll_seconds)  # it is not tried again before
            raise NotReady(f"{version} cannot answer yet: {why}", retry_after_seconds=later, field="model")
        return await self._other(version)

    async def _default_model(self) -> LiveModel:
        """The model of requests that name none; chosen from what should answer, so that a failure is no other model.

        Raises:
            NotReady: it cannot answer now.
            Invalid: there are several, and none is the default.
        """
        reference = self.default_reference
        if reference is None:
            if not self._names:
                raise NotReady("no model is loaded yet", retry_after_seconds=self._poll_seconds)
            raise Invalid(f"several models are served, name one of: {', '.join(sorted(self._names))}", field="model")
        try:
            return await self.get(reference)
        except NotFound as error:  # the setting's fault, not the client's
            why = f"the default model cannot answer: {error.detail}"
            raise NotReady(why, retry_after_seconds=self._poll_seconds) from error

    async def _other(self, version: Version) -> LiveModel:
        """A version that is no champion, from memory or loaded now."""
        present = self._others.get(version)
        if present is not None:
            self._others.move_to_end(version)
            return present
        again, why = self._failures.get(version, (0.0, ""))
        if again > self._clock():
            raise NotFound(f"{version} is not served: {why}", field="model")
        if self._loading is None:
            task = asyncio.get_running_loop().create_task(self._load_other(version))
            self._loading = (version, task)
        loading, task = self._loading
        if loading == version:
            await asyncio.wait([task], timeout=PATIENCE_SECONDS)
            if task.done():
                model = task.result()
                if model is None:
                    raise NotFound(f"{version} is not served: {self._failures[version][1]}", field="model")
                return model
        raise NotReady(f"{loading} is being loaded", field="model")

    async def _load_other(self, version: Version) -> LiveModel | None:
        try:
            model = await self._load(version)
            if model is not None:
                self._others[version] = model
                while len(self._others) > self._max_loaded:
                    self._others.popitem(last=False)
                self._observer.changed(self.loaded)
            return model
        finally:
            self._loading = None

    async def _load(self, version: Version) -> LiveModel | None:
        """Load a version, unless it failed a moment ago; None where it fails."""
        again, _ = self._failures.get(version, (0.0, ""))
        if again > self._clock():
            return None
        try:
            model = await asyncio.to_thread(self._loader, version)
        except Exception as error:  # whatever is wrong with one version, the others keep serving
            detail = error.detail if isinstance(error, GenserveError) else f"{type(error).__name__}: {error}"
            self._failures[version] = (self._clock() + RETRY_SECONDS, detail)
            self._report(version.name, detail, version=str(version))
            return None
        self._failures.pop(version, None)
        log.info(
            "model loaded",
            model=str(version),
            digest=model.manifest.digest[:12],
            numerics=model.numerics,
            provider=model.provider,
            variant=model.variant,
        )
        if model.passed_over is not None:
            log.warning("the promised variant cannot run here", model=str(version), reason=model.passed_over)
        if model.provider != model.asked:
            log.warning(
                "on another provider than asked for", model=str(version), asked=model.asked, used=model.provider
            )
        if model.verdict is None:
            log.warning("UNJUDGED model is served: GENSERVE_ALLOW_UNJUDGED is set", model=str(version))
        return model

    async def _go_live(self, name: str, wanted: Wanted) -> None:
        """Let a version answer for a name, if it can be loaded or already is."""
        version, promised = wanted
        present = self._others.get(version)
        usable = present is not None and present.promised == promised
        model = await self._judged(present) if present is not None and usable else await self._load(version)
        if model is not None:
            self._champions[name] = model  # the swap
            self._unfit.pop(name, None)
            self._others.pop(version, None)
            self._observer.went_live(model)

    async def _read_verdicts(self) -> None:
        """Bring what is loaded up to date with its verdicts; an on-demand version that lost its own is let go."""
        for name, model in list(self._champions.items()):
            judged = await self._judged(model)
            if judged is not model and self._champions[name] is model:
                self._champions[name] = judged
                self._observer.went_live(judged)
        for version, model in list(self._others.items()):
            judged = await self._judged(model)
            if version not in self._others:  # it made room meanwhile
                continue
            if judged.verdict is None and not self._allow_unjudged:
                del self._others[version]
            else:
                self._others[version] = judged

    async def _judged(self, model: LiveModel) -> LiveModel:
        """The same model with the verdict that it has now; itself where nothing changed or nothing can be read."""
        try:
            verdict = await asyncio.to_thread(self._repository.passing, model.version)
            if verdict == model.verdict:
                return model
            why = None if verdict is not None else await asyncio.to_thread(self._repository.distrusted, model.version)
        except (GenserveError, OSError):
            return model
        log.info("verdict changed", model=str(model.version), unjudged=verdict is None, reason=why)
        return replace(model, verdict=verdict)

    async def _champion_versions(self) -> dict[str, Wanted]:
        """What should answer for each name, where it can be told."""
        try:
            names = await asyncio.to_thread(self._repository.names)
        except OSError as error:  # a network volume that is away for a while
            log.error("the repository cannot be read", error=str(error))
            return {}
        versions, unreadable = {}, set()
        for name in names:
            try:
                wanted = await asyncio.to_thread(self._champion_version, name)
                unheeded = await asyncio.to_thread(self._repository.unheeded, name)
            except (GenserveError, OSError) as error:
                self._report(name, str(error))
                unreadable.add(name)
                continue
            if wanted is not None:
                versions[name] = wanted
            if unheeded is not None and self._unheeded.get(name) != unheeded:
                self._report(name, unheeded)
            self._unheeded[name] = unheeded or ""
        self._names = {*versions, *unreadable, *self._champions}
        alone = next(iter(self._names)) if len(self._names) == 1 else None
        self._usual = PREFERRED_MODEL if PREFERRED_MODEL in self._names else alone
        return versions

    def _champion_version(self, name: str) -> Wanted | None:
        """What answers for a name: its champion, or where that is allowed its newest version; None for neither."""
        aliases = self._repository.aliases(name)
        if aliases.champion is None:
            return Wanted(self._repository.versions(name)[-1], {}) if self._allow_unjudged else None
        return Wanted(self._repository.resolve(name), aliases.variants or {})

    def _resolve(self, name: str, which: str) -> Version:
        """The version meant by a reference that no loaded champion answers."""
        if which in ("", "champion") and name in self._repository.names():
            wanted = self._champion_version(name)
            if wanted is not None:
                return wanted.version
        return self._repository.resolve(f"{name}@{which}" if which else name)

    def _report(self, name: str, reason: str, **more: str) -> None:
        serving = self._champions.get(name)
        still = str(serving.version) if serving else None
        log.error("model not loaded", model=name, reason=reason, still_serving=still, **more)
        self._observer.load_failed(name)
