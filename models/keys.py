"""Ed25519 keys and signatures, and the files that keys are kept in. Knows nothing of what is signed.

A private key is a PEM file (PKCS #8, as `openssl genpkey -algorithm ed25519` writes it too) that only its owner can
read. A public key is its 32 bytes in base64, 44 characters, as one pastes them into a setting. RFC 8032.

`cryptography` is imported where it is used: it costs 40 ms, which only those who sign or check shall pay.
"""

import base64
import binascii
import functools
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from models.errors import Invalid

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC_BYTES = 32
SHOWN = 12  # characters of a public key that tell it from others in a table
OTHERS = 0o077  # what group and everybody else may do


class SigningKey:
    """A private key.

    Attributes:
        public: its public key.
    """

    def __init__(self, private: "Ed25519PrivateKey") -> None:
        self._private = private
        self.public = _text(private.public_key().public_bytes_raw())

    def sign(self, message: bytes) -> str:
        """The signature of a message: 64 bytes in base64."""
        return _text(self._private.sign(message))


def make_key() -> SigningKey:
    """A new private key from the system's randomness, kept nowhere."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return SigningKey(Ed25519PrivateKey.generate())


def new_key(path: Path) -> SigningKey:
    """Make a private key and write it to a new file with mode 0600.

    Raises:
        Invalid: something lies there already: a key is never overwritten.
        OSError: it cannot be written.
    """
    from cryptography.hazmat.primitives import serialization

    key = make_key()
    text = key._private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Invalid(f"{path} is there already: a key is never overwritten", field="key") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    return key


def read_key(path: Path) -> SigningKey:
    """The private key in a file.

    Raises:
        Invalid: it cannot be read, holds no Ed25519 key, or is the reader's own and others may read it.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            text = file.read()
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", field="key") from error
    if status.st_uid == os.geteuid() and status.st_mode & OTHERS:  # mounted secrets belong to somebody else
        mode = f"{stat.S_IMODE(status.st_mode):04o}"
        raise Invalid(f"{path} has mode {mode}, so others may use it. Mend: chmod 600 {path}", field="key")
    try:
        private = serialization.load_pem_private_key(text, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Invalid(f"{path} holds no private key that can be used: {error}", field="key") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise Invalid(f"{path} holds a key of another kind than Ed25519", field="key")
    return SigningKey(private)


@functools.lru_cache(maxsize=1024)  # servers look every few seconds at what rarely changes
def verifies(public: str, signature: str, message: bytes) -> bool:
    """Whether a signature of a message was made with the private half of a public key."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    key, proof = _decoded(public), _decoded(signature)
    if key is None or proof is None or len(key) != PUBLIC_BYTES:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(proof, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def public_keys(entries: Iterable[str]) -> tuple[str, ...]:
    """Public keys as people name them.

    Args:
        entries: each a public key, or a file with one on each line; what follows a blank is a comment, and so is a
            line that begins with "#".

    Raises:
        Invalid: an entry is neither, or a file has a line that is no public key.
    """
    found: dict[str, None] = {}
    for entry in entries:
        for key in [entry] if is_public_key(entry) else _listed(Path(entry)):
            found[key] = None
    return tuple(found)


def is_public_key(text: str) -> bool:
    """Whether a text is a public key's 44 characters."""
    key = _decoded(text)
    return key is not None and len(key) == PUBLIC_BYTES


def short(keys: Iterable[str]) -> str:
    """Public keys for a table: enough of each to tell it from others."""
    return ", ".join(f"{key[:SHOWN]}..." for key in keys)


def _listed(path: Path) -> list[str]:
    """The public keys in a file, at least one."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise Invalid(
            f"{path} is neither a public key (44 characters of base64) nor a file of them: {reason}", field="key"
        ) from error
    words = [(number, line.split()[0]) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    for number, word in words:
        if not is_public_key(word):
            raise Invalid(f"line {number} of {path} is no public key: 44 characters of base64", field="key")
    if not words:
        raise Invalid(f"{path} holds no public key", field="key")
    return [word for _, word in words]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decoded(text: str) -> bytes | None:
    """The bytes of base64 as `_text` writes it; None for any other spelling, so that no two texts mean one key."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if _text(data) == text else None
