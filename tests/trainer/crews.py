"""Small games that one process or several play, and what they leave to compare.

    torchrun --nproc-per-node 2 -m tests.trainer.crews OUT

writes OUT/crew.pt from the first process, and OUT/toldN.txt from each: what process N says of faults elsewhere.
"""

import copy
import math
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from models.errors import GenserveError, Invalid
from models.manifest import Classes
from models.standardising import standardisation
from tests.trainer.conftest import SHAPE
from trainer.config import Config
from trainer.distributed import Crew, assembled
from trainer.finite import Diverged
from trainer.recipes import recipe
from trainer.state import Batch, State
from trainer.steps import Steps

STEPS = 20
HALF = 10  # steps before the checkpoint
CLASSES = Classes(names=("dark", "light"), frequencies=(0.5, 0.5))
SMALL = Config(
    data="noise", d_norm="none", z_dim=4, g_channels=4, d_channels=4, d_hidden=8, batch_size=16,
    kimg=1.0, seed=3, threads=1, precision="fp32", device="cpu",
)  # fmt: skip


def game(preset: str, loss: str, **settings: object) -> Config:
    """Networks and objective with what comes with them, small."""
    small = {"z_dim": 4, "g_channels": 4, "d_channels": 4, "d_hidden": 8, "batch_size": 16, "kimg": 1.0}
    return msgspec.structs.replace(
        SMALL, **{**recipe(preset, loss), "preset": preset, "loss": loss, **small, **settings}
    )


GAMES = {
    "relativistic, R1 and R2": game("r3gan", "relativistic", augment="colour,translation,cutout", flip=True),
    "non-saturating, lazy R1": game("r3gan", "non-saturating", r1_gamma=1.0, r1_interval=4, conditional=True),
    "wasserstein, gradient penalty": game("r3gan", "wasserstein", prior="uniform", d_period=2),
    # batches of 16 let rounding grow: a ten-millionth of the weights moves the 20th loss by 1e-3, in one process too
    "vectors through noise": game("mlp", "relativistic", d_channels=32, g_channels=32, batch_size=256),
    "hinge, spectral": game("mlp", "hinge", noise_max=0.0, r1_gamma=0.0, r2_gamma=0.0, batch_size=256),
}


def samples(config: Config) -> np.ndarray:
    """Noise to learn."""
    random = np.random.RandomState(0)
    if config.preset == "mlp":
        return random.standard_normal((512, 2)).astype(np.float32)
    return random.randint(0, 256, (64, *SHAPE), dtype=np.uint8)


def make_state(config: Config, crew: Crew) -> State:
    """A fresh one."""
    vectors = config.preset == "mlp"
    shape = (2,) if vectors else SHAPE
    return State(
        config,
        shape,
        CLASSES if config.conditional else None,
        standardisation(samples(config)) if vectors else None,
        crew,
    )


def make_steps(state: State) -> Steps:
    """On data that only the first process brings."""
    if not state.crew.leads:
        return Steps(state, None, None)
    return Steps(state, samples(state.config), np.arange(64) % 2 if state.config.conditional else None)


def gradients(config: Config, crew: Crew) -> dict[str, torch.Tensor]:
    """Of each player's first step, from the initial weights of both, by parameter."""
    d_state, g_state = make_state(config, crew), make_state(config, crew)
    d_state.train_d(make_steps(d_state).batch(0), 0)
    g_state.train_g(make_steps(g_state).batch(0))
    networks = {"D": d_state.D, "G": g_state.G}
    named = {f"{player}.{name}": p.grad for player in networks for name, p in networks[player].named_parameters()}
    return {name: gradient for name, gradient in named.items() if gradient is not None}


def losses(state: State, count: int) -> list[float]:
    """Of so many steps of either player, penalties left out."""
    steps = make_steps(state)
    return [float(steps.take().loss) for _ in range(count)]


def play(config: Config, crew: Crew) -> dict[str, Any]:
    """All that is compared: gradients, losses, and the state in the middle."""
    state = make_state(config, crew)
    before = losses(state, HALF)
    half = copy.deepcopy(state.state_dict())
    return {"gradients": gradients(config, crew), "losses": before + losses(state, STEPS - HALF), "half": half}


def fault(crew: Crew) -> str:
    """What this process says when process 1 meets a NaN."""
    state = make_state(GAMES["vectors through noise"], crew)
    images, _ = make_steps(state).batch(0)
    try:
        state.train_d(Batch(images * math.nan if crew.rank == 1 else images), 0)
    except Diverged as error:
        return str(error)
    return "nothing"


def failure(crew: Crew) -> str:
    """What this process meets when the first one fails at what only it does."""
    try:
        if crew.leads:
            with crew.awaited():
                raise Invalid("no room")
        crew.wait()
    except GenserveError as error:
        return type(error).__name__
    return "nothing"


def main() -> None:
    """Play everything and write it down."""
    out = Path(sys.argv[1])
    torch.use_deterministic_algorithms(True)
    with assembled("cpu") as crew:
        torch.set_num_threads(1)
        played = {name: play(config, crew) for name, config in GAMES.items()}
        if crew.leads:
            torch.save(played, out / "crew.pt")
        told = [fault(crew), failure(crew), str(crew.any(crew.rank == 1)), str(crew.any(False))]
        (out / f"told{crew.rank}.txt").write_text("\n".join(told))


if __name__ == "__main__":
    main()
