"""Retiring versions: their files go, their history stays. Knows nothing of judging or serving."""

from models.errors import Refused
from models.promotion import champion_stack
from models.records import Event
from models.repository import Repository, Version, now, whoami


def retire(repository: Repository, version: Version, *, why: str | None = None) -> Event:
    """Remove a version's files for good. The history keeps what happened to it, and its number is not given again.

    Returns:
        The event that was recorded.

    Raises:
        Refused: it is the champion, or what a rollback would return to; where keys are trusted, by their promotions or
            by those that count for nobody.
        NotFound: it is not there any more.
        LoadError: the model's history is damaged.
    """
    name = version.name
    with repository.writing(name):
        repository.resolve(str(version))  # nobody has retired it meanwhile
        for aliases in (repository.written_aliases(name), repository.aliases(name)):
            if aliases.champion == version.number:
                raise Refused(f"{version} is the champion: promote another version first")
        for history in (repository.history(name), repository.standing(name)):
            if version.number in [event.version for event in champion_stack(history)[-2:]]:
                raise Refused(f"{version} is what a rollback of {name} returns to: promote another version first")
        event = Event(event="retired", version=version.number, when=now(), by=whoami(), why=why)
        recorded = repository.record(name, event)
        repository.clear_retired(name)
    return recorded
