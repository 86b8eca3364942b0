"""What routes need of models and of whoever draws, wherever those are: in this process or another."""

from collections.abc import Hashable
from typing import Protocol

from serving.cache_memory import Kept
from serving.calls import Done, Leave
from serving.loading import LiveModel
from serving.orders import LatentOrder, Order
from serving.sampler import Drawn
from serving.schedule import Deadline


class Models(Protocol):
    """The models that answer: serving.live.LiveModels, or serving.remote."""

    @property
    def ready(self) -> bool:
        """Whether something can answer."""
        ...

    @property
    def fault(self) -> str | None:
        """Why a model must not answer; None where all may."""
        ...

    @property
    def loaded(self) -> list[LiveModel]:
        """Everything in memory, champions first."""
        ...

    def champion(self, name: str) -> LiveModel | None:
        """The model that answers for a name now."""
        ...

    def at_hand(self, reference: str | None) -> LiveModel | None:
        """The model that a request means, where it is a champion; None for all else."""
        ...

    async def get(self, reference: str | None) -> LiveModel:
        """The model that a request means; see LiveModels.get."""
        ...


class Draws(Protocol):
    """Answers orders: serving.sampler.Sampler, or serving.remote."""

    async def sample(self, order: Order, deadline: Deadline) -> Drawn:
        """Samples for seeds."""
        ...

    def begin(self, order: Order, deadline: Deadline, done: Done[Drawn]) -> Leave:
        """`sample` for one seed, by calling back."""
        ...

    async def sample_latents(self, order: LatentOrder, deadline: Deadline) -> Drawn:
        """Samples for latents."""
        ...

    def find_answer(self, key: Hashable) -> Kept | None:
        """A whole answer that was kept before; None where there is none."""
        ...

    def keep_answer(self, key: Hashable, kept: Kept) -> None:
        """Keep a whole answer."""
        ...
