"""Opens a published version as everybody must: digest, signature, golden samples. Knows no verdicts and no requests.

What serves, judges, verifies and samples goes through here, so that none of them runs a file that another refuses.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from models import golden, processor
from models.errors import GenserveError, LoadError
from models.generator import Generator
from models.golden import Numerics
from models.manifest import Manifest
from models.probing import used_provider
from models.repository import Version
from models.runtime import CPU_PROVIDER
from models.variants import Variant, VariantManifest, find_variant, read_recipe


class Opened(NamedTuple):
    """A version that is ready to run on this machine.

    Args:
        generator: its `batch` is what makes samples independent of their neighbours here.
        manifest: what the version says of itself; where a variant runs, with the variant's digest and golden samples.
        numerics: what this machine makes of it.
        variant: the name of the variant that runs; None for the version itself.
        passed_over: why the variant that was promised does not run; None where it does, or none was promised.
    """

    generator: Generator
    manifest: Manifest
    numerics: Numerics
    variant: str | None = None
    passed_over: str | None = None


def open_version(version: Version, *, providers: Sequence[str] = (CPU_PROVIDER,), threads: int = 1) -> Opened:
    """Open a version and check its golden samples on this machine; blocking, the check is also the warm-up.

    Args:
        version: what to open.
        providers: preference; see models.runtime.make_session.
        threads: intra-op threads.

    Raises:
        LoadError: as `open_unchecked`, or the golden samples do not come out here as they were published.
    """
    manifest = version.manifest()
    generator = open_unchecked(version, manifest, providers=providers, threads=threads)
    return Opened(generator, manifest, golden.check(generator, manifest.golden))


def open_unchecked(
    version: Version, manifest: Manifest, *, providers: Sequence[str] = (CPU_PROVIDER,), threads: int = 1
) -> Generator:
    """Open the file that a manifest describes, without running it: for whoever reports on golden samples themselves.

    Raises:
        LoadError: the file is unreadable, has another digest than its manifest says, or another signature.
    """
    generator = Generator.open(version.model_path, digest=manifest.digest, providers=providers, threads=threads)
    if generator.signature != manifest.signature:
        raise LoadError("its manifest's signature differs from the one in model.onnx")
    return generator


def open_promised(
    version: Version,
    promised: Mapping[str, str],
    *,
    providers: Sequence[str] = (CPU_PROVIDER,),
    threads: int = 1,
    trusted: Collection[str] = (),
) -> Opened:
    """Open the variant of a version that its promotion promised for the provider in use here, else the version itself.

    A variant that cannot run here gives way to the version, which passed the gate itself; `passed_over` says why, and
    the samples say so too: they have the version's digest and numerics.

    Args:
        version: what to open.
        promised: the variant's name for each provider; see models.records.promised_variants.
        providers: preference.
        threads: intra-op threads.
        trusted: public keys of which one must have signed the variant's verdict; none for any.

    Raises:
        LoadError, Unavailable: as `open_version`.
    """
    provider = used_provider(tuple(providers)) if promised else None
    name = promised.get(provider) if provider is not None else None
    if name is None:
        return open_version(version, providers=providers, threads=threads)
    try:
        return open_variant(find_variant(version, name), threads=threads, trusted=trusted)
    except GenserveError as error:
        return open_version(version, providers=providers, threads=threads)._replace(
            passed_over=f"{name}: {error.detail}"
        )


def open_variant(variant: Variant, *, threads: int = 1, trusted: Collection[str] = ()) -> Opened:
    """Open a variant that passed, on the provider that it is for, and check its own golden samples.

    Raises:
        LoadError: it did not pass, or no trusted key says so; its files are damaged or disagree, this processor lacks
            what it requires, or its golden samples do not come out here.
        Unavailable: its provider cannot be used here.
    """
    own = variant.passing(trusted)
    manifest = msgspec.structs.replace(variant.version.manifest(), digest=own.digest, golden=own.golden)
    generator = open_variant_unchecked(variant, own, threads=threads)
    if generator.signature != manifest.signature:
        raise LoadError(f"{variant}: its signature is not the version's")
    return Opened(generator, manifest, golden.check(generator, manifest.golden), variant.name)


def open_variant_unchecked(variant: Variant, manifest: VariantManifest, *, threads: int = 1) -> Generator:
    """Open a variant's file as its recipe says, whatever its verdict and its golden samples are.

    Raises:
        LoadError: its file is unreadable, has another digest or another recipe, or this processor lacks what it
            requires.
        Unavailable: its provider cannot be used here.
    """
    recipe = manifest.recipe
    if recipe.requires and not processor.features() & set(recipe.requires):
        raise LoadError(f"{variant} needs a processor with {' or '.join(recipe.requires)}")
    generator = Generator.open(
        variant.model_path,
        digest=manifest.digest,
        providers=(recipe.provider,),
        threads=threads,
        precision=recipe.precision,
    )
    if read_recipe(variant.model_path.read_bytes()) != recipe:
        raise LoadError(f"{variant}: its manifest's recipe differs from the one in model.onnx")
    return generator
