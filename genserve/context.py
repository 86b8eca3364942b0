"""What every command shares with the server: the same settings, from the same places. Knows no command."""

import os
from pathlib import Path

from models import places
from models.errors import Invalid
from models.keys import SigningKey, read_key
from models.repository import Repository
from serving.errors import SettingsError
from serving.settings import Settings, load_settings


def readable_repository() -> Repository:
    """The repository that a server started here would serve.

    Raises:
        SettingsError: a GENSERVE_ name that is none, or a bad value, in the environment or in genserve.toml.
    """
    settings = load_settings()
    return Repository(places.readable_repository(_environment(settings)).root, trusted=settings.trusted_keys)


def writable_repository() -> Repository:
    """The same, made from the shipped zoo where there is none yet; what is written is signed where there is a key.

    Raises:
        SettingsError: as above, or the signing key cannot be used.
        Refused: it is the shipped zoo itself.
    """
    settings = load_settings()
    key = signing_key(settings)
    return Repository(places.writable_repository(_environment(settings)).root, key=key, trusted=settings.trusted_keys)


def signing_key(settings: Settings) -> SigningKey | None:
    """The key that commands sign with; None where none is named.

    Raises:
        SettingsError: it cannot be used.
    """
    if settings.signing_key is None:
        return None
    try:
        return read_key(Path(settings.signing_key))
    except Invalid as error:
        raise SettingsError(error.detail, field="GENSERVE_SIGNING_KEY") from error


def _environment(settings: Settings) -> dict[str, str]:
    """GENSERVE_MODELS as the settings have it; GENSERVE_DATA of the settings file is set for whoever reads data."""
    if settings.data is not None:
        os.environ.setdefault("GENSERVE_DATA", settings.data)
    return {"GENSERVE_MODELS": settings.models} if settings.models is not None else {}
