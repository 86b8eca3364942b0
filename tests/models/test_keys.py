"""Keys: who may read them, what is no key, and signatures that hold or do not."""

import base64
from pathlib import Path

import pytest

from models.errors import Invalid
from models.keys import is_public_key, make_key, new_key, public_keys, read_key, verifies

# RFC 8032, section 7.1, test 3.
RFC_SECRET = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7"
RFC_PUBLIC = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"
RFC_MESSAGE = "af82"
RFC_SIGNATURE = (
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
    "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
)
PKCS8_HEAD = "302e020100300506032b657004220420"  # RFC 8410: what stands before the 32 bytes of a private key


def base64_of(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text)).decode()


def test_signatures_are_those_of_the_standard(tmp_path: Path) -> None:
    """A private key in a PEM file as other tools write it, and the signature that RFC 8032 gives for it."""
    path = tmp_path / "k"
    path.touch(mode=0o600)
    path.write_text(f"-----BEGIN PRIVATE KEY-----\n{base64_of(PKCS8_HEAD + RFC_SECRET)}\n-----END PRIVATE KEY-----\n")
    key = read_key(path)
    assert key.public == base64_of(RFC_PUBLIC)
    assert key.sign(bytes.fromhex(RFC_MESSAGE)) == base64_of(RFC_SIGNATURE)
    assert verifies(key.public, base64_of(RFC_SIGNATURE), bytes.fromhex(RFC_MESSAGE))


def test_a_new_key_is_its_owners_alone(tmp_path: Path) -> None:
    """Mode 0600, whatever the umask; the same key is read again."""
    path = tmp_path / "k"
    key = new_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path).public == key.public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    """What it signed would be worth nothing any more."""
    path = tmp_path / "k"
    new_key(path)
    before = path.read_bytes()
    with pytest.raises(Invalid, match="there already"):
        new_key(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_not_used(tmp_path: Path, mode: int) -> None:
    """The error has the command that mends it."""
    path = tmp_path / "k"
    new_key(path)
    path.chmod(mode)
    with pytest.raises(Invalid, match=f"mode {mode:04o}.*chmod 600"):
        read_key(path)


@pytest.mark.parametrize("content", ["", "junk", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_named(tmp_path: Path, content: str) -> None:
    """The error names the file."""
    path = tmp_path / "k"
    path.touch(mode=0o600)
    path.write_text(content)
    with pytest.raises(Invalid, match=r"/k holds no private key"):
        read_key(path)
    with pytest.raises(Invalid, match="cannot read"):
        read_key(tmp_path / "none")


def test_a_signature_holds_for_its_message_and_key_alone() -> None:
    """Any other message, key, signature or spelling of one is refused."""
    key, other, message = make_key(), make_key(), b"message"
    signature = key.sign(message)
    assert verifies(key.public, signature, message)
    assert not verifies(key.public, signature, b"massage")
    assert not verifies(other.public, signature, message)
    assert not verifies(key.public, other.sign(message), message)
    assert not verifies(key.public, "", message)
    assert not verifies("", signature, message)
    assert not verifies(key.public, signature.rstrip("="), message)


def test_a_public_key_has_one_spelling() -> None:
    """The two unused bits of its last character must be 0, so that no key is listed twice under two names."""
    public = base64.b64encode(bytes(32)).decode()
    assert is_public_key(public)
    assert not is_public_key(public.replace("A=", "B="))
    assert not is_public_key(public + "\n")
    assert not is_public_key(base64.b64encode(bytes(31)).decode())


def test_public_keys_come_as_text_or_in_files(tmp_path: Path) -> None:
    """Comments and empty lines are allowed, and a key that is named twice counts once."""
    first, second, third = (make_key().public for _ in range(3))
    path = tmp_path / "trusted"
    path.write_text(f"# release keys\n{second} 2027, release\n\n  {third}\n{first}\n")
    assert public_keys([first, str(path)]) == (first, second, third)


@pytest.mark.parametrize(
    ("content", "complaint"), [(None, "neither a public key"), ("", "holds no"), ("# x\nAAAA", "line 2 of")]
)
def test_what_is_no_public_key_is_named(tmp_path: Path, content: str | None, complaint: str) -> None:
    """File and line."""
    path = tmp_path / "trusted"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Invalid, match=complaint):
        public_keys([str(path)])
