"""How often the gate refuses what it should, and what it should not: a power study in the features of real samples.

    python -m bench.power [--repetitions 200] [--pool 300000] [--json FILE]

A pool of the shipped generator's samples stands for a generator, a pool of real images for the data. In every
repetition a gate split of 10,000 reals, a champion's 50,000 fakes and a candidate's are drawn anew from the pools, and
measured and judged by the gate's own functions. Candidates: equal to the champion; 25 % worse, in that so many of its
samples are blurred that FD of the pools is 25 % higher; with one class at 0.3 of its share; with 5 % of its samples
copied from the training set. Asked: equal ones are refused at most 5 % of the time, each other at least 95 %.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.optimize import brentq
from scipy.special import betaincinv

from bench.machine import describe
from models.batches import batches
from models.datasets import load_dataset
from models.extractors import Extractor, resolve_extractor
from models.frechet import difference, frechet, frechet_distance, moments
from models.generator import Generator
from models.latents import draw
from models.neighbours import nearest_distances, replay
from models.policy import Policy

Features = NDArray[np.float32]  # [N, d]

MODEL = Path(__file__).parent.parent / "models" / "zoo" / "fashion-mnist"
NUM_GATE = 10_000
WORSE = 1.25  # FD of the worse candidate over the champion's
RARE, RARE_SHARE = 3, 0.3
COPIED = 0.05
BLUR = 0.8  # pixels
FIRST_SEED = 3_000_000
NUM_TIMED = 60_000  # samples whose nearest training sample is looked for


class Pool(NamedTuple):
    """Samples of one source: features, and the class that each is recognised as."""

    features: Features
    class_idx: NDArray[np.int64]


def make_pools(extractor: Extractor, count: int) -> tuple[Pool, Pool]:
    """Samples of the champion that ships, as they are and blurred."""
    newest = max(MODEL.glob("*/model.onnx"), key=lambda path: int(path.parent.name))
    generator = Generator.from_bytes(newest.read_bytes())
    seeds = np.arange(count) + FIRST_SEED
    found: tuple[list[Pool], list[Pool]] = ([], [])
    for rows in batches(count, generator.signature.shape):
        images = np.asarray(generator.generate(*draw(generator.signature, seeds[rows])), np.uint8)
        blurred = np.rint(gaussian_filter(images.astype(np.float32), (0, BLUR, BLUR, 0))).astype(np.uint8)
        for pools, samples in zip(found, (images, blurred), strict=True):
            extracted = extractor.extract(samples)
            assert extracted.class_idx is not None
            pools.append(Pool(extracted.features, extracted.class_idx))
    sound, blurry = (Pool(*map(np.concatenate, zip(*pools, strict=True))) for pools in found)
    return sound, blurry


def blurred_share(sound: Pool, blurry: Pool, reals: Features) -> float:
    """How many samples must be blurred for FD of the pools to be 1.25 times the champion's."""
    real, goal = moments(reals), WORSE * frechet_distance(moments(sound.features), moments(reals))

    def excess(share: float) -> float:
        number = round(share * len(sound.features))
        mixed = np.concatenate([blurry.features[:number], sound.features[number:]])
        return frechet_distance(moments(mixed), real) - goal

    return float(brentq(excess, 0.0, 0.5, xtol=1e-4))


class Study:
    """Draws gate splits, champions and candidates, and counts refusals."""

    def __init__(self, count: int, seed: int) -> None:
        data = load_dataset("fashion-mnist")
        extractor = resolve_extractor(None, data)
        self.policy, self.random = Policy(), np.random.RandomState(seed)
        self.sound, self.blurry = make_pools(extractor, count)
        extracted = extractor.extract(data.samples)
        assert extracted.class_idx is not None
        self.reals = Pool(extracted.features, extracted.class_idx)
        self.trace = float(np.trace(moments(self.reals.features).covariance))
        self.share = blurred_share(self.sound, self.blurry, self.reals.features)
        train = self.reals.features[data.indices["train"]]
        held_out = self.reals.features[data.indices["gate"]]
        self.near = nearest_distances(self.sound.features[:NUM_TIMED], train)
        self.held_out = nearest_distances(held_out, train)

    def compared(self, *, worse: bool) -> bool:
        """Whether G2 refuses a candidate as good as the champion, or a worse one."""
        reals = self._some(self.reals, NUM_GATE).features
        champion = frechet(self._some(self.sound, self.policy.num_fake).features, reals)
        fakes = self._some(self.sound, self.policy.num_fake).features
        if worse:
            number = self.random.binomial(len(fakes), self.share)
            fakes[:number] = self._some(self.blurry, number).features
        found = difference(frechet(fakes, reals), champion)
        margin = max(self.policy.margin_relative * champion.fd_inf, self.policy.margin_absolute * self.trace)
        return bool(found.delta + self.policy.z_one_sided * found.se > margin)

    def rare(self) -> bool:
        """Whether G4 refuses a generator with one class at 0.3 of its share."""
        classes = self._some(self.sound, 2 * self.policy.num_fake).class_idx
        kept = classes[(classes != RARE) | (self.random.random_sample(len(classes)) < RARE_SHARE)]
        real = self._some(self.reals, NUM_GATE).class_idx
        shares = [(found[: self.policy.num_fake] == RARE).mean() for found in (kept, real)]
        return bool(shares[0] < self.policy.min_class_share * shares[1])

    def copied(self, share: float = COPIED) -> bool:
        """Whether G5 refuses samples of which so many are training images."""
        near = self.random.choice(self.near, self.policy.num_neighbours)
        near[: self.random.binomial(len(near), share)] = 0.0
        held_out = self.random.choice(self.held_out, len(self.held_out))
        return replay(near, held_out).upper > self.policy.max_replay

    def _some(self, pool: Pool, count: int) -> Pool:
        rows = self.random.randint(0, len(pool.features), count)
        return Pool(pool.features[rows], pool.class_idx[rows])


def refused(name: str, asked: str, candidate: Callable[[], bool], repetitions: int) -> dict[str, object]:
    """Counts refusals; prints the share with its 95 % interval (Clopper & Pearson 1934)."""
    count = sum(candidate() for _ in range(repetitions))
    low = float(betaincinv(count, repetitions - count + 1, 0.025)) if count else 0.0
    high = float(betaincinv(count + 1, repetitions - count, 0.975)) if count < repetitions else 1.0
    print(
        f"{name:<34} refused {count} of {repetitions}: {count / repetitions:.1%} [{low:.1%} {high:.1%}], asked {asked}"
    )
    return {"candidate": name, "asked": asked, "refused": count, "of": repetitions, "low": low, "high": high}


def main() -> None:
    """Print a line for each kind of candidate; keep the figures where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--pool", type=int, default=300_000, help="samples drawn from the generator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="keep the figures here")
    args = parser.parse_args()
    study = Study(args.pool, args.seed)
    print(describe(), f"{study.share:.1%} of the worse candidate's samples are blurred", sep="\n")
    figures = [
        refused("equal to the champion", "<= 5 %", lambda: study.compared(worse=False), args.repetitions),
        refused("25 % worse than the champion", ">= 95 %", lambda: study.compared(worse=True), args.repetitions),
        refused("one class at 0.3 of its share", ">= 95 %", study.rare, args.repetitions),
        refused("5 % copied", ">= 95 %", study.copied, args.repetitions),
        refused("nothing copied", "<= 5 %", lambda: study.copied(0.0), args.repetitions),
    ]
    if args.json:
        kept = {"machine": describe(), "blurred": study.share, "policy": study.policy.hash, "candidates": figures}
        args.json.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
