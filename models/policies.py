"""A repository's own thresholds: policy.toml beside the models, from which each model's policy is put together.

    max_fd = 0.03              # of every model
    [vector]                   # or [image]: of every model of that kind
    max_fd = 0.01
    [models.fashion-mnist]     # of one model
    min_recall = 0.6

What comes later counts: defaults, the file's top, its kind, what the model was published with, its own table.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

import msgspec

from models.errors import Invalid, Refused
from models.manifest import Kind
from models.policy import Policy, make_policy
from models.records import Verdict
from models.repository import Repository

FILE_NAME = "policy.toml"
KINDS: tuple[Kind, ...] = get_args(Kind)
NOT_THRESHOLDS = {"num_fake"}  # how much was measured: a person may ask for more
ONLY_OF: Mapping[Kind, frozenset[str]] = {"image": frozenset(), "vector": frozenset({"min_region_share"})}

Thresholds = dict[str, float | int | bool | str | None]


class Policies(msgspec.Struct, frozen=True):
    """policy.toml.

    Args:
        every: thresholds of every model.
        kinds: of models of a kind.
        models: of a model, by its name.
    """

    every: Thresholds = {}
    kinds: dict[str, Thresholds] = {}
    models: dict[str, Thresholds] = {}

    def policy(self, name: str, kind: Kind, published: Mapping[str, float | int | bool | str | None]) -> Policy:
        """A model's policy; `published` is what its reference.json changes.

        Raises:
            Invalid: an unknown threshold, or a value of the wrong type or range.
        """
        return make_policy({**self.every, **self.kinds.get(kind, {}), **published, **self.models.get(name, {})})


def read_policies(root: Path) -> Policies:
    """A repository's policy.toml; without one, nothing is changed. Every table is checked, used or not.

    Raises:
        Invalid: the file cannot be read or says what is no threshold; names the file and the place.
    """
    path = root / FILE_NAME
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Policies()
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise Invalid(f"{path}: {error}", field="policy") from error
    kinds = {kind: tables.pop(kind) for kind in KINDS if kind in tables}
    models = tables.pop("models", {})
    try:
        found = msgspec.convert({"every": tables, "kinds": kinds, "models": models}, Policies)
    except msgspec.ValidationError as error:
        raise Invalid(f"{path}: {error}", field="policy") from error
    places = {"its top": found.every} | {f"[{kind}]": table for kind, table in found.kinds.items()}
    places |= {f"[models.{name}]": table for name, table in found.models.items()}
    for place, table in places.items():
        try:
            make_policy(table)
        except Invalid as error:
            raise Invalid(f"{path}, {place}: {error.detail}", field=error.field or "policy") from error
    return found


def effective_policy(repository: Repository, name: str, kind: Kind) -> Policy:
    """What a model of a repository is judged by now.

    Raises:
        Invalid: policy.toml or the reference's thresholds are wrong.
    """
    reference = repository.reference(name)
    return read_policies(repository.root).policy(name, kind, reference.policy if reference else {})


def check_policy(repository: Repository, name: str, kind: Kind, verdict: Verdict) -> None:
    """Refuse a verdict that was reached by other thresholds than those of now.

    Raises:
        Refused: names each threshold that differs.
    """
    now = effective_policy(repository, name, kind).as_dict()
    others = frozenset[str]().union(*(fields for other, fields in ONLY_OF.items() if other != kind))
    changed = [
        f"{field} was {verdict.policy.get(field)}, is {value}"
        for field, value in now.items()
        if field not in NOT_THRESHOLDS | others and verdict.policy.get(field) != value
    ]
    if changed:
        detail = f"{name}@{verdict.version} was judged by another policy ({'; '.join(changed)}): gate it again"
        raise Refused(detail, field="policy")
