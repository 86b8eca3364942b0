"""Numbers by which other processes name models, each kept for as long as anybody may still use it. Knows no sockets."""

import itertools
from collections.abc import Collection

from serving.loading import LiveModel


class Handles:
    """Models that workers may name.

    A replaced model is kept until every worker has taken over a snapshot without it and no request of theirs holds it.
    """

    def __init__(self) -> None:
        self._models: dict[int, LiveModel] = {}
        self._numbers: dict[LiveModel, int] = {}
        self._retired: dict[int, int] = {}  # handle -> number of the first snapshot without it
        self._next = itertools.count(1)

    def __len__(self) -> int:
        return len(self._models)

    def handle(self, model: LiveModel) -> int:
        """The number of a model, the same every time."""
        number = self._numbers.get(model)
        if number is None:
            number = self._numbers[model] = next(self._next)
            self._models[number] = model
        return number

    def model(self, handle: int) -> LiveModel | None:
        """The model of a number; None where it is gone."""
        return self._models.get(handle)

    def retire_others(self, present: Collection[LiveModel], snapshot: int) -> None:
        """Snapshot number `snapshot` knows only these models."""
        keep = {self.handle(model) for model in present}
        for handle in self._models.keys() - keep:
            self._retired.setdefault(handle, snapshot)
        for handle in keep & self._retired.keys():
            del self._retired[handle]

    def release(self, seen: int, held: Collection[int]) -> None:
        """Let go of retired models.

        Args:
            seen: the last snapshot that every worker has taken over.
            held: handles that some worker's requests still hold.
        """
        for handle, snapshot in list(self._retired.items()):
            if snapshot <= seen and handle not in held:
                del self._retired[handle]
                del self._numbers[self._models.pop(handle)]
