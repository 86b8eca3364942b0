"""What a model reference means among the champions. Knows no repository."""

from collections.abc import Mapping

from serving.loading import LiveModel


def champion_meant(champions: Mapping[str, LiveModel], reference: str) -> LiveModel | None:
    """The champion that name, name@champion or name@3 means; None where it means none of them."""
    champion = champions.get(reference)
    if champion is None and "@" in reference:
        name, _, which = reference.partition("@")
        champion = champions.get(name)
        if champion is not None and which not in ("champion", str(champion.version.number)):
            return None
    return champion
