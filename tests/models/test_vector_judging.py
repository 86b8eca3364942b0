"""What judging vectors by random Fourier features sees: every fault that moments of raw coordinates are blind to."""

import numpy as np
import pytest

from models.datasets import load_dataset
from models.extractors import resolve_extractor
from models.frechet import frechet
from models.mixtures import GRID, RING, Mixture
from models.neighbours import neighbour_scores

NUM_FAKES = 4000


def faults(mixture: Mixture) -> dict[str, np.ndarray]:
    """Samples of a mixture, as they should be and with one fault each."""
    sound = mixture.draw(NUM_FAKES, seed=7)
    centres = np.array(mixture.centres, np.float32)
    nearest = np.argmin([np.square(sound - centre).sum(1) for centre in centres], axis=0)
    bridged = sound.copy()
    between = np.random.RandomState(0).random_sample((NUM_FAKES // 10, 1))
    here = nearest[: len(between)]
    bridged[: len(between)] = centres[here] * between + centres[(here + 1) % len(centres)] * (1 - between)
    lost = sound[nearest != 1]
    return {
        "sound": sound,
        "a mode lost": lost,
        "modes shrunk to half": centres[nearest] + (sound - centres[nearest]) / 2,
        "modes half as wide again": centres[nearest] + (sound - centres[nearest]) * 1.5,
        "a tenth between modes": bridged,
        "one Gaussian": (np.random.RandomState(1).standard_normal(sound.shape) * sound.std(0)).astype(np.float32),
    }


@pytest.mark.parametrize(("name", "mixture"), [("ring", RING), ("grid", GRID)])
def test_every_fault_is_farther_than_the_truth(name: str, mixture: Mixture) -> None:
    """FD / Tr of sound samples is within .004 of 0, of each fault above .01; precision, recall or coverage fall too."""
    data = load_dataset(name)
    extractor = resolve_extractor(None, data)
    real = extractor.features(data.split("gate").samples[:NUM_FAKES])
    trace = real.var(0).sum()
    distances, worst = {}, {}
    for fault, samples in faults(mixture).items():
        features = extractor.features(samples)
        distances[fault] = frechet(features, real).fd_inf / trace
        scores = neighbour_scores(features[:1500], real[:1500])
        worst[fault] = min(scores.precision, scores.recall, scores.coverage)
    assert abs(distances.pop("sound")) < 0.004
    assert min(distances.values()) > 0.01, distances
    assert distances["one Gaussian"] == max(distances.values())
    floor = worst.pop("sound")
    assert max(worst.values()) < floor - 0.02, worst
