"""The gate's thresholds, and their hash. Knows nothing of how they are applied."""

import hashlib
from collections.abc import Mapping

import msgspec

from models.errors import Invalid


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a generator must reach to be promoted; the defaults are measured on Fashion-MNIST (docs/).

    Args:
        num_fake: fakes drawn from the candidate and from each version that it is compared with.
        num_neighbours: of them and of the reals, for KID, the neighbour scores and replay.
        min_gate_samples: fewer reals than this leave the verdict "insufficient".
        allow_small: judge all the same.
        z_one_sided: standard errors on one-sided bounds: 1.645 for 95 %.
        max_fd: G1: upper bound of FD_inf / Tr S_real.
        margin_relative: G2: the candidate may be worse by this share of the other's FD_inf ...
        margin_absolute: ... or by this share of Tr S_real, whichever is more.
        min_precision: G3: of real against real.
        min_recall: G3: of real against real.
        min_coverage: G3: of real against real.
        min_class_share: G4: of each class's real share.
        max_class_accuracy_loss: G4: how far conditional samples may be recognised less often than reals, 0..1.
        max_near_duplicates: G4: upper bound of the share of fakes that are nearly other fakes, 0..1.
        max_worst_class: G4: upper bound of the worst class's FD_inf / Tr S_real.
        min_region_share: G4, of vectors: of each region's real share.
        max_replay: G5: upper bound of the share of fakes nearer to the training set than held-out samples are.
    """

    num_fake: int = 50_000
    num_neighbours: int = 10_000
    min_gate_samples: int = 2_000
    allow_small: bool = False
    z_one_sided: float = 1.645
    max_fd: float = 0.05
    margin_relative: float = 0.10
    margin_absolute: float = 0.002
    min_precision: float = 0.80
    min_recall: float = 0.45
    min_coverage: float = 0.60
    min_class_share: float = 0.5
    max_class_accuracy_loss: float = 0.05
    max_near_duplicates: float = 0.1
    max_worst_class: float = 0.15
    min_region_share: float = 0.4
    max_replay: float = 0.02

    def __post_init__(self) -> None:
        for field in ("num_fake", "num_neighbours"):
            if getattr(self, field) < 100:
                raise Invalid(f"{getattr(self, field)} is below 100", field=f"policy.{field}")
        for field, value in self.as_dict().items():
            if not 0 <= float(value or 0) < float("inf"):
                raise Invalid(f"{value} must be finite and not negative", field=f"policy.{field}")

    def as_dict(self) -> dict[str, float | int | bool | str | None]:
        """Every threshold by name, as verdicts keep them."""
        return msgspec.structs.asdict(self)

    @property
    def hash(self) -> str:
        """sha256 of the policy as canonical JSON: equal policies have equal hashes."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()


def make_policy(changed: Mapping[str, float | int | bool | str | None]) -> Policy:
    """The default policy with some thresholds changed, as a reference.json lists them.

    Raises:
        Invalid: an unknown threshold, or a value of the wrong type or range.
    """
    try:
        return msgspec.convert(dict(changed), Policy)
    except msgspec.ValidationError as error:
        raise Invalid(str(error), field="policy") from error
