"""Random weights and images for the Inception network, and its features of them as torch-fidelity makes them.

    pip install --no-deps --target .tools/torch-fidelity torch-fidelity==0.4.0      # as `make test` does
    python -m tests.trainer.inception_kit                   # writes tests/trainer/inception_golden.npz

torch-fidelity wants torchvision, which its extractor's module never uses: that one module is loaded by itself here.
"""

import importlib
import sys
import types
from importlib.machinery import PathFinder
from pathlib import Path

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "inception_golden.npz"
SHAPES = ((2, 28, 28, 1), (2, 32, 32, 3), (1, 299, 299, 3), (1, 70, 45, 3), (1, 333, 400, 3))
PACKAGE = "torch_fidelity"
TOOLS = Path(__file__).parent.parent.parent / ".tools" / "torch-fidelity"


def there():
    """Where torch-fidelity is installed; None where it is not."""
    return PathFinder.find_spec(PACKAGE, [str(TOOLS), *sys.path])


def random_weights(shapes):
    """Weights for a state dict's shapes from a frozen stream: every tensor matters, and features are about 1."""
    random, weights = np.random.RandomState(0), {}
    for key, shape in shapes.items():
        if key.endswith("conv.weight"):
            value = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))
        elif key.endswith("running_var"):
            value = random.uniform(0.5, 2, shape)
        elif key.endswith("bn.weight"):
            value = random.uniform(0.6, 1.2, shape)
        else:
            value = 0.1 * random.standard_normal(shape)
        weights[key] = torch.tensor(value, dtype=torch.float32)
    return weights


def images():
    """uint8 images [N, H, W, C] of several sizes, grey and coloured."""
    return [np.random.RandomState(i).randint(0, 256, shape, np.uint8) for i, shape in enumerate(SHAPES)]


def theirs(weights, path):
    """torch-fidelity's features [N, 2048] and logits without bias [N, 1008] of all images; the weights go to a file."""
    package = types.ModuleType(PACKAGE)  # without what the real one imports
    package.__path__ = list(there().submodule_search_locations)
    sys.modules[PACKAGE] = package
    module = importlib.import_module(f"{PACKAGE}.feature_extractor_inceptionv3")
    torch.save(weights, path)
    network = module.FeatureExtractorInceptionV3(
        "inception", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )
    with torch.inference_mode():
        made = [network(torch.from_numpy(x).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)) for x in images()]
    return tuple(torch.cat(part).numpy() for part in zip(*made, strict=True))


if __name__ == "__main__":
    from trainer.inception import Inception

    shapes = {key: tuple(value.shape) for key, value in Inception().state_dict().items() if value.ndim}
    file = GOLDEN.with_suffix(".pth")
    features, logits = theirs(random_weights(shapes), file)
    file.unlink()
    np.savez_compressed(GOLDEN, features=features, logits=logits)
    print(GOLDEN, features.shape, features.mean(), features.std(), logits.std())
