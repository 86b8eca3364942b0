"""What comes with a choice of objective where nothing else is said: settings as published. Knows no torch.

They come after Config's defaults and before a configuration file and the command line.
"""

from collections.abc import Mapping

LOSS_RECIPES: Mapping[str, Mapping[str, object]] = {
    "hinge": {"d_norm": "spectral"},  # Miyato et al. 2018, section 4
    "wasserstein": {  # Gulrajani et al. 2017, Alg. 1
        "d_norm": "none", "gp_lambda": 10.0, "d_period": 5, "g_lr": 1e-4, "d_lr": 1e-4, "beta1": 0.0, "beta2": 0.9,
    },
    "relativistic": {  # Huang et al. 2024: R1 and R2 in every step; gamma as for CIFAR-10
        "d_norm": "none", "r1_gamma": 0.05, "r2_gamma": 0.05, "r1_interval": 1, "beta1": 0.0, "g_lr": 2e-4,
        "d_lr": 2e-4,
    },
}  # fmt: skip


def recipe(loss: object) -> dict[str, object]:
    """The settings that come with an objective; empty for one that has none, or is not known."""
    return dict(LOSS_RECIPES.get(str(loss), {}))
