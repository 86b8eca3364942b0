"""What comes with a choice of networks or objective where nothing else is said, as published. Knows no torch.

They come after Config's defaults and before a configuration file and the command line.
"""

from collections.abc import Mapping

PRESET_RECIPES: Mapping[str, Mapping[str, object]] = {
    # Huang et al. 2024: cosines from the first step to the last; widths for a processor
    "r3gan": {
        "loss": "relativistic", "d_norm": "none", "g_channels": 32, "d_channels": 32, "lr_decay_start": 0.0,
        "decay": "cosine", "lr_end": 0.25, "gamma_end": 0.1, "beta2": 0.9, "beta2_end": 0.99,
        "ema_half_life_kimg": 20.0,
    },
    # ours: measured on ring and grid (docs/training.md)
    "mlp": {
        "loss": "relativistic", "d_norm": "none", "z_dim": 8, "g_channels": 128, "d_channels": 128, "d_hidden": 96,
        "blocks": 3, "batch_size": 256, "kimg": 1250.0, "g_lr": 5e-4, "d_lr": 3e-3, "beta2": 0.99,
        "lr_decay_start": 0.3, "decay": "cosine", "r1_gamma": 1.0, "r2_gamma": 1.0, "r1_interval": 4, "noise_max": 3.0,
        "ema_half_life_kimg": 40.0, "precision": "fp32", "threads": 1, "snapshot_kimg": 250.0,
    },
}  # fmt: skip
LOSS_RECIPES: Mapping[str, Mapping[str, object]] = {
    "hinge": {"d_norm": "spectral"},  # Miyato et al. 2018, section 4
    "wasserstein": {  # Gulrajani et al. 2017, Alg. 1
        "d_norm": "none", "r1_gamma": 0.0, "r2_gamma": 0.0, "gp_lambda": 10.0, "d_period": 5, "g_lr": 1e-4,
        "d_lr": 1e-4, "beta1": 0.0, "beta2": 0.9,
    },
    "relativistic": {  # Huang et al. 2024: R1 and R2 in every step; gamma as for CIFAR-10
        "d_norm": "none", "r1_gamma": 0.05, "r2_gamma": 0.05, "r1_interval": 1, "beta1": 0.0, "g_lr": 2e-4,
        "d_lr": 2e-4,
    },
}  # fmt: skip


def recipe(preset: object, loss: object) -> dict[str, object]:
    """The settings that come with networks and with an objective; None where none was chosen.

    Networks know better than the objective that they were tested with; another objective than that knows better.
    """
    networks = PRESET_RECIPES.get(str(preset), {})
    own = networks.get("loss")
    game = LOSS_RECIPES.get(str(loss or own), {})
    return {**game, **networks} if loss in (None, own) else {**networks, **game}
