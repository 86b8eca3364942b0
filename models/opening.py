"""Opens a published version as everybody must: digest, signature, golden samples. Knows no verdicts and no requests.

What serves, judges, verifies and samples goes through here, so that none of them runs a file that another refuses.
"""

from collections.abc import Sequence
from typing import NamedTuple

from models import golden
from models.errors import LoadError
from models.generator import Generator
from models.golden import Numerics
from models.manifest import Manifest
from models.repository import Version
from models.runtime import CPU_PROVIDER


class Opened(NamedTuple):
    """A version that is ready to run on this machine.

    Args:
        generator: its `batch` is what makes samples independent of their neighbours here.
        manifest: what the version says of itself.
        numerics: what this machine makes of it.
    """

    generator: Generator
    manifest: Manifest
    numerics: Numerics


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
