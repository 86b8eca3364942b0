"""Which versions a candidate is compared with: the champion and the best ever promoted. Measures nothing."""

from models.errors import LoadError, NotFound, Refused
from models.labels import distance
from models.records import Event, Verdict, retired
from models.reference import RealFeatures
from models.repository import Repository, Version


def champion_besides(repository: Repository, version: Version) -> Version | None:
    """The champion, which a judgement needs as the one to compare with.

    Raises:
        Refused: it is the very version to judge.
        LoadError: it is not there.
    """
    number = repository.aliases(version.name).champion
    if number == version.number:
        raise Refused(
            f"{version} is the champion: `genserve evaluate` measures it, "
            f"`genserve gate {version.name}@candidate` judges the candidate"
        )
    return None if number is None else _numbered(repository, version.name, number)


def rivals(
    repository: Repository, version: Version, reals: RealFeatures, champion: Version | None
) -> list[tuple[str, Version]]:
    """The versions that a candidate is compared with: ("champion", ...) and ("best", ...), the best one ever promoted.

    The best is the one whose verdict at its promotion, over this reference, has the smallest FD_inf, of those that were
    not retired since. It is left out where it is the champion, and a version is never compared with itself.

    Raises:
        LoadError: the history names a version or a verdict that is not there.
    """
    name = distance("FD_inf", reals.extractor.label)
    promoted: dict[Version, float] = {}
    gone = retired(repository.history(version.name))
    for event in repository.standing(version.name):
        if event.event != "promoted" or event.verdict is None or event.version in gone:
            continue
        past, verdict = _relied_on(repository, version.name, event)
        if verdict.reference == reals.hash and name in verdict.numbers:
            promoted[past] = verdict.numbers[name].value
    chosen = [("champion", champion)] if champion is not None else []
    if promoted:
        chosen.append(("best", min(promoted, key=lambda past: promoted[past])))
    found: dict[Version, str] = {}
    for role, other in chosen:
        if other != version:
            found.setdefault(other, role)
    return [(role, other) for other, role in found.items()]


def _relied_on(repository: Repository, name: str, event: Event) -> tuple[Version, Verdict]:
    """The version that an event made champion, and the verdict that allowed it."""
    version = _numbered(repository, name, event.version)
    verdicts = repository.verdicts(version)
    number = event.verdict or 0
    if not 1 <= number <= len(verdicts):
        raise LoadError(f"{name}/history.jsonl names verdict {number} of {version}, which has {len(verdicts)}")
    return version, verdicts[number - 1]


def _numbered(repository: Repository, name: str, number: int) -> Version:
    """A version that aliases or history name, which must be there."""
    try:
        return repository.resolve(f"{name}@{number}")
    except NotFound as error:
        raise LoadError(f"{name}/history.jsonl names version {number}, which is not there") from error
