"""Signs what is there already: a version's newest verdict, its variants' verdicts, and a history as it stands.

For what was judged before there was a key, for another key beside the first, and for what a person mended by hand.
"""

from models import attestation, files
from models.attestation import Attestation, Subject
from models.errors import LoadError, Refused
from models.generator import sha256
from models.history import check_lines, first_fault, standing
from models.keys import SigningKey
from models.records import Event, fold
from models.repository import Repository, Version, now, subject_of, whoami
from models.variants import variants


def vouch(repository: Repository, reference: str, *, why: str | None = None) -> list[str]:
    """Sign a version's newest verdict and those of its variants, and where it is the champion the history so far.

    Args:
        repository: with a key; it is written to.
        reference: what to sign, as `Repository.resolve` takes it.
        why: for the history, where that is signed.

    Returns:
        What was signed, for a person.

    Raises:
        NotFound: there is no such version.
        Refused: there is no key, or no verdict; or model.onnx is not the published one.
        LoadError: a file cannot be read.
    """
    key = repository.key
    if key is None:
        raise Refused("there is nothing to sign with: name the private key's file in GENSERVE_SIGNING_KEY")
    name = reference.partition("@")[0]
    repository.require(name)
    with repository.writing(name):  # which brings the aliases up to the history, by which the champion is found
        version = repository.resolve(reference)
        paths = repository.verdict_paths(version)
        if not paths:
            raise Refused(f"{version} has no verdict to sign: run `genserve gate {version}` first")
        subjects = [subject_of(version, paths[-1]), *(variant.subject for variant in variants(version))]
        for subject in subjects:
            _sign(subject, key)
        signed = [f"{subject.name}/{subject.verdict}" for subject in subjects]
        repository.attested(version)  # else a verdict is gone, or the signature is of another file
        if _needs_vouching(repository, version, key):
            event = Event(
                event="vouched", version=version.number, when=now(), by=whoami(), why=why, verdict=int(paths[-1].stem)
            )
            repository.record(name, event)
            signed.append(f"the history of {name}, whose champion is {version}")
    return signed


def _sign(subject: Subject, key: SigningKey) -> None:
    """Sign one verdict; what is not the published file is not signed for."""
    digest = attestation.manifest_digest(subject.folder)
    try:
        actual = sha256((subject.folder / "model.onnx").read_bytes())
    except OSError as error:
        raise LoadError(f"{subject.name}: cannot read model.onnx: {error.strerror}") from error
    if actual != digest:
        raise Refused(f"{subject.name}'s model.onnx has digest {actual[:12]}..., published was {digest[:12]}...")
    files.replace_file(subject.path, attestation.attest(subject, key, present=_present(subject)))


def _present(subject: Subject) -> Attestation | None:
    """The signatures that there are; none where the file is damaged."""
    try:
        return attestation.read_attestation(subject)
    except LoadError:
        return None


def _needs_vouching(repository: Repository, version: Version, key: SigningKey) -> bool:
    """Whether the version is the champion, and who trusts this key alone would not know it."""
    name, meant = version.name, fold(repository.history(version.name))
    lines = check_lines(name, repository.lines(name), frozenset({key.public}))
    return meant.champion == version.number and (first_fault(name, lines) is not None or fold(standing(lines)) != meant)
