"""One version, loaded: opened, checked, warmed up, its speed measured. Knows no champions, requests or batches."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from models.batches import Runs
from models.errors import LoadError
from models.generator import Samples
from models.latents import ClassIndices, Latents, draw
from models.manifest import Manifest
from models.opening import open_promised
from models.records import Verdict, promised_variants
from models.repository import Repository, Version
from models.runtime import CPU_PROVIDER
from serving.cache import Form
from serving.cache_memory import Address
from serving.speed import Speed

MEASURED_BATCH, MEASUREMENTS = 8, 3  # images, and how often: about 30 images' time at load


class Network(Runs, Protocol):
    """What is loaded: a Generator, or serving.remote's stand-in for one in another process."""

    providers: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LiveModel:
    """A loaded, checked and warmed-up version.

    Args:
        version: what it is.
        manifest: what it says of itself; its digest is that of the file that runs, a variant's where one does.
        generator: runs it.
        numerics: hash of the golden samples as this machine computes them.
        verdict: the passing one; None where unjudged versions are allowed and it has none.
        asked: the provider that was preferred.
        loaded: Unix time.
        promised: which variant serves each provider, by its promotion.
        variant: the one that runs; None for the version itself.
        passed_over: why the variant promised for this provider does not run; None where it does, or none was.
        speed: of its batches on one engine; measured at load, and kept up to date by who runs it.
    """

    version: Version
    manifest: Manifest
    generator: Network
    numerics: str
    verdict: Verdict | None
    asked: str
    loaded: float
    promised: Mapping[str, str] = field(default_factory=dict)
    variant: str | None = None
    passed_over: str | None = None
    speed: Speed = field(default_factory=Speed)

    @cached_property
    def address(self) -> Address:
        """What, with seeds, decides its samples and what is said of them."""
        return Address(self.version.name, self.version.number, self.manifest.digest, self.numerics, self.loaded)

    @cached_property
    def form(self) -> Form:
        """What each of its samples looks like."""
        return Form(self.manifest.kind, self.manifest.shape)

    def generate(self, z: Latents, class_idx: ClassIndices | None = None) -> Samples:
        """Run it: [N, z_dim] float32 and [N] int64 to N samples; blocking, callable from several threads at once."""
        return self.generator.generate(z, class_idx)

    @property
    def provider(self) -> str:
        """What it really runs on."""
        return self.generator.providers[0]


def load(
    repository: Repository,
    version: Version,
    *,
    providers: Sequence[str] = (CPU_PROVIDER,),
    allow_unjudged: bool = False,
) -> LiveModel:
    """Load and check a version, or the variant promised for it; blocking. The golden samples' check is the warm-up.

    Raises:
        LoadError: no passing verdict, or where keys are trusted none that one of them signed; another digest or
            signature than its manifest's; or unlike its golden samples.
        Unavailable: none of the providers asked for can be used.
    """
    verdict = repository.passing(version)
    if verdict is None and not allow_unjudged:
        raise LoadError(repository.distrusted(version) or f"{version} has no passing verdict")
    promised = promised_variants(repository.standing(version.name), version.number)
    opened = open_promised(version, promised, providers=providers, trusted=repository.trusted)
    return LiveModel(
        version=version,
        manifest=opened.manifest,
        generator=opened.generator,
        numerics=opened.numerics.hash,
        verdict=verdict,
        asked=providers[0],
        loaded=time.time(),
        promised=promised,
        variant=opened.variant,
        passed_over=opened.passed_over,
        speed=_measure(opened.generator),
    )


def _measure(generator: Network) -> Speed:
    """The best of a few batches of 1 and of 8."""
    latents = draw(generator.signature, range(MEASURED_BATCH))
    best = {1: math.inf, MEASURED_BATCH: math.inf}
    for _ in range(MEASUREMENTS):
        for images in best:
            began = time.perf_counter()
            generator.generate(latents.z[:images], None if latents.class_idx is None else latents.class_idx[:images])
            best[images] = min(best[images], max(time.perf_counter() - began, 1e-6))
    return Speed.measured(best[1], MEASURED_BATCH, best[MEASURED_BATCH])
