"""Publishing: an ONNX file becomes a version of a model, with its manifest, golden samples and sample grid.

Knows nothing of judging: what it is judged against comes in as a finished Reference.
"""

import msgspec

from models import golden, pictures, png
from models.errors import Invalid, LoadError, NotServable
from models.foreign import adopt, is_stamped
from models.generator import Generator
from models.latents import draw
from models.manifest import Classes, Manifest, Prior, Provenance
from models.records import Reference
from models.repository import Repository, Version, check_name, now
from models.version import code_version

GRID_SAMPLES = 64


def publish(
    repository: Repository,
    name: str,
    data: bytes,
    *,
    prior: Prior | None = None,
    classes: Classes | None = None,
    provenance: Provenance | None = None,
    reference: Reference | None = None,
    why: str | None = None,
) -> Version:
    """Add a generator to a repository as the candidate of a name.

    Args:
        repository: where to.
        name: of the model.
        data: a serialised ONNX model; ours (with a signature) is taken byte for byte, any other is adopted.
        prior: what z is drawn from; needed for a foreign file, checked against the signature of ours.
        classes: of a conditional foreign generator.
        provenance: where it comes from; a foreign one by default.
        reference: what the name is judged against; None leaves it as it is.
        why: for the history.

    Returns:
        The new version.

    Raises:
        Invalid: a bad name, or a prior that is missing or wrong.
        NotServable: the file cannot be served, and why.
        Refused: the name is judged against something else already.
    """
    check_name(name)
    stamped = stamp_as_ours(data, prior=prior, classes=classes)
    try:
        samples = golden.make(Generator.from_bytes(stamped, lower=False))  # what the file itself says, not a form of it
        generator = Generator.from_bytes(stamped)
        golden.check(generator, samples)
    except LoadError as error:
        raise NotServable(error.detail) from error
    contents = {"model.onnx": stamped}
    if generator.signature.kind == "image":
        contents["samples.png"] = sample_grid(generator)
    manifest = Manifest(
        **msgspec.structs.asdict(generator.signature),
        name=name,
        version=0,  # the repository numbers it
        digest=generator.digest,
        golden=samples,
        provenance=provenance or Provenance(source="foreign", code_version=code_version()),
        created=now(),
    )
    if reference is not None:
        repository.set_reference(name, reference)
    return repository.publish(name, contents, manifest=manifest, why=why)


def sample_grid(generator: Generator) -> bytes:
    """A PNG of the first 64 seeds."""
    images = generator.generate(*draw(generator.signature, range(GRID_SAMPLES)))
    return png.encode(pictures.grid(images), level=9)


def stamp_as_ours(data: bytes, *, prior: Prior | None, classes: Classes | None) -> bytes:
    """The file that will be published: ours byte for byte, a foreign one adopted.

    Raises:
        Invalid: a prior that is missing or wrong.
        NotServable: a foreign file that cannot be served, and why.
        LoadError: a damaged file of ours.
    """
    if not is_stamped(data):
        if prior is None:
            raise Invalid("a foreign file does not say it: give normal or uniform", field="prior")
        return adopt(data, prior=prior, classes=classes)
    actual = Generator.from_bytes(data).signature.prior
    if prior not in (None, actual):
        raise Invalid(f"the file's signature says {actual}", field="prior")
    return data
