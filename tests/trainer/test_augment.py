"""DiffAugment: what each change does, that gradients pass, and that it reaches both players."""

import msgspec
import numpy as np
import pytest
import torch

from tests.trainer.conftest import SHAPE
from tests.trainer.test_parts import changed, noise, weights
from trainer.augment import augment
from trainer.config import Config
from trainer.state import State
from trainer.streams import Stream


def stream(seed: int = 0) -> Stream:
    return Stream(seed, batch_size=1)


def test_translation_moves_by_whole_pixels() -> None:
    """Each image is a window of itself with zeros around, at most an eighth of a side away; all places come."""
    images = torch.randn(200, 2, 16, 8)
    with torch.autocast("cpu", torch.bfloat16):  # takes no bits from the pixels
        moved = augment(images, "translation", stream())
    padded = torch.nn.functional.pad(images, (1, 1, 2, 2))
    places = set()
    for i in range(200):
        found = [
            (y, x) for y in range(5) for x in range(3) if torch.equal(padded[i, :, y : y + 16, x : x + 8], moved[i])
        ]
        assert len(found) == 1
        places.add(found[0])
    assert places == {(y, x) for y in range(5) for x in range(3)}


def test_cutout_blanks_a_square_of_half_a_side() -> None:
    """Zeros in one rectangle of at most half a side each way, whole in the middle; nothing else changes."""
    cut = augment(torch.ones(300, 1, 8, 8), "cutout", stream())[:, 0]
    areas = set()
    for image in cut:
        rows, columns = (image == 0).any(1), (image == 0).any(0)
        assert torch.equal(image == 0, torch.outer(rows, columns))
        areas.add((int(rows.sum()), int(columns.sum())))
    assert max(areas) == (4, 4)
    assert min(areas) >= (1, 1)
    assert len(areas) > 4


def test_colour_keeps_what_it_should() -> None:
    """Grey stays grey; the contrast's range is 0.5 .. 1.5 and the brightness's +-0.5."""
    grey = torch.randn(500, 1, 4, 4).expand(500, 3, 4, 4)
    changed_ = augment(grey, "colour", stream())
    torch.testing.assert_close(changed_[:, 0], changed_[:, 2])
    contrast = changed_.std(dim=(1, 2, 3)) / grey.std(dim=(1, 2, 3))
    assert 0.5 <= contrast.min() < 0.6
    assert 1.4 < contrast.max() <= 1.5
    brightness = changed_.mean(dim=(1, 2, 3)) - grey.mean(dim=(1, 2, 3))
    assert -0.5 - 1e-5 <= brightness.min() < -0.4
    assert 0.4 < brightness.max() <= 0.5 + 1e-5


def test_colour_changes_saturation() -> None:
    """Distances between channels are multiplied by 0 .. 2 times the contrast."""
    images = torch.randn(300, 3, 4, 4)
    out = augment(images, "colour", stream())
    ratio = (out[:, 0] - out[:, 1]).flatten(1).norm(dim=1) / (images[:, 0] - images[:, 1]).flatten(1).norm(dim=1)
    assert ratio.min() < 0.1
    assert 1.5 < ratio.max() <= 3


@pytest.mark.parametrize("policy", ["colour", "translation", "cutout", "colour,translation,cutout"])
def test_gradients_pass(policy: str) -> None:
    """Through every change, as finite differences say, twice."""
    images = torch.randn(2, 3, 8, 8, requires_grad=True)
    out = augment(images, policy, stream(3))
    (gradient,) = torch.autograd.grad(out.square().sum(), images, create_graph=True)
    direction, step = torch.randn_like(images), 1e-2
    ahead, behind = (augment(images + sign * step * direction, policy, stream(3)).square().sum() for sign in (1, -1))
    assert ((ahead - behind) / (2 * step)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-2)
    (second,) = torch.autograd.grad(gradient.square().sum(), images)
    assert second.any()


def test_none_is_the_image_itself() -> None:
    """And draws nothing."""
    images, before = torch.randn(2, 1, 8, 8), stream()
    assert augment(images, "none", before) is images
    assert torch.equal(before.generator.get_state(), stream().generator.get_state())


@pytest.mark.parametrize("settings", [{}, {"d_norm": "none", "r1_gamma": 1.0, "r1_interval": 1}])
def test_both_players_see_changed_images(tiny: Config, settings: dict[str, object]) -> None:
    """From the same state, D's and G's steps end elsewhere with DiffAugment; D's penalty included, all finite."""
    plain = State(msgspec.structs.replace(tiny, **settings), SHAPE)
    changing = State(msgspec.structs.replace(tiny, **settings, augment="colour,translation,cutout"), SHAPE)
    for state in (plain, changing):
        state.train_d(noise(), 0)
    assert changed(plain.D, weights(changing.D))
    changing.D.load_state_dict(plain.D.state_dict())
    changing.stream.generator.set_state(plain.stream.generator.get_state())
    for state in (plain, changing):
        state.train_g(noise())
    assert changed(plain.G, weights(changing.G))
    assert all(np.isfinite(p.detach().numpy()).all() for p in changing.G.parameters())
