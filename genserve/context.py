"""What every command shares with the server: the same settings, from the same places. Knows no command."""

import os

from models import places
from models.repository import Repository
from serving.settings import load_settings


def readable_repository() -> Repository:
    """The repository that a server started here would serve.

    Raises:
        SettingsError: a GENSERVE_ name that is none, or a bad value, in the environment or in genserve.toml.
    """
    return places.readable_repository(_environment())


def writable_repository() -> Repository:
    """The same, made from the shipped zoo where there is none yet.

    Raises:
        SettingsError: as above.
        Refused: it is the shipped zoo itself.
    """
    return places.writable_repository(_environment())


def _environment() -> dict[str, str]:
    """GENSERVE_MODELS as the settings have it; GENSERVE_DATA of the settings file is set for whoever reads data."""
    settings = load_settings()
    if settings.data is not None:
        os.environ.setdefault("GENSERVE_DATA", settings.data)
    return {"GENSERVE_MODELS": settings.models} if settings.models is not None else {}
