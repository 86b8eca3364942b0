"""Which settings make no sense together or with the data, and why. Knows no torch and no files."""

from typing import TYPE_CHECKING

from models.errors import Invalid
from models.inventory import MAX_SKIPPED_SHARE

if TYPE_CHECKING:
    from trainer.config import Config


def check(config: "Config") -> None:
    """Refuse a configuration that cannot work, before anything is made.

    Left to the user, since published results exist for them: relativistic pairing without R1 and R2 (Jolicoeur-
    Martineau 2019; the proof of local convergence in Huang et al. 2024 needs both), spectral normalisation together
    with any penalty (Kurach et al. 2019), hinge without spectral normalisation (Lim & Ye 2017).

    Raises:
        Invalid: names the field and the reason.
    """
    _check_penalties(config)
    _check_networks(config)
    if config.preset == "r3gan" and config.d_norm != "none":
        detail = "r3gan's D is made to work without normalisation, and its blocks begin at zero"
        raise Invalid(f"{detail}: set d_norm to none", field="d_norm")
    if config.preset == "r3gan" and not (config.r1_gamma or config.r2_gamma or config.gp_lambda):
        detail = "r3gan's D has no normalisation, and nothing else bounds its slope"
        raise Invalid(f"{detail}: set r1_gamma (0.05), or gp_lambda (10)", field="r1_gamma")
    if config.loss == "wasserstein" and not config.gp_lambda and config.d_norm != "spectral":
        detail = "wasserstein needs a D of bounded slope, else its score grows without end"
        raise Invalid(f"{detail}: set gp_lambda (10), or d_norm to spectral", field="loss")


def check_reading(config: "Config", *, folder: bool) -> None:
    """Refuse for a new run what only says how a folder of images is read, where its data are none.

    Args:
        config: of the run.
        folder: whether its data are a folder of images.

    Raises:
        Invalid: names the field.
    """
    if not folder and config.resolution is not None:
        raise Invalid(f"only a folder of images is resized, {config.data} is none: leave it out", field="resolution")
    if not folder and config.max_skipped != MAX_SKIPPED_SHARE:
        detail = f"only broken files of a folder of images are skipped, {config.data} is none"
        raise Invalid(f"{detail}: leave it out", field="max_skipped")


def check_length(config: "Config", d_steps: int) -> None:
    """Refuse a new run that is over before G's turn: its length counts what D is shown, and D goes first.

    Args:
        config: of the run.
        d_steps: how many steps D's period has.

    Raises:
        Invalid: names the least kimg.
    """
    first = d_steps * config.batch_size  # images; G follows if the run wants one more
    if config.kimg * 1000 <= first:
        period = f"D's first period of {d_steps:,} steps takes {first:,} images"
        mend = f"at least {(first + 1) / 1000:.3f}, or a shorter d_period"
        raise Invalid(f"{period}, and the run ends before G takes any step: {mend}", field="kimg")


def _check_networks(config: "Config") -> None:
    if config.g_hidden and config.preset not in ("dcgan", "resize"):
        raise Invalid(f"{config.preset}'s G has no such layer: leave it out", field="g_hidden")
    if config.blocks != 1 and config.preset not in ("r3gan", "mlp"):
        raise Invalid(f"{config.preset} has no blocks: leave it out", field="blocks")
    vectors = config.preset == "mlp"
    if config.noise_max and not vectors:
        raise Invalid(f"{config.preset}'s D is not told of noise: leave it out", field="noise_max")
    if config.noise_max and config.noise_min > config.noise_max:
        raise Invalid(f"{config.noise_min:g} is above noise_max, {config.noise_max:g}", field="noise_min")
    if vectors and config.d_norm == "batch":
        raise Invalid("mlp's D has no BatchNorm: set d_norm to none or spectral", field="d_norm")
    if vectors and config.flip:
        raise Invalid("images are mirrored, and mlp is for vectors", field="flip")
    if vectors and config.augment != "none":
        raise Invalid("DiffAugment changes images, and mlp is for vectors", field="augment")


def _check_penalties(config: "Config") -> None:
    penalties = {"r1_gamma": config.r1_gamma, "r2_gamma": config.r2_gamma, "gp_lambda": config.gp_lambda}
    on = [name for name, weight in penalties.items() if weight]
    if on and config.d_norm == "batch":
        detail = "with BatchNorm, D's answer for an image depends on the whole batch, and its slope at one image says"
        raise Invalid(
            f"{detail} nothing (Gulrajani et al. 2017, section 4): set d_norm to none or spectral", field=on[0]
        )
    if config.gp_lambda and (config.r1_gamma or config.r2_gamma):
        detail = "wants slopes of 1 between real and generated images; R1 and R2 want 0 at their ends: leave one out"
        raise Invalid(f"the gradient penalty {detail}", field="gp_lambda")
