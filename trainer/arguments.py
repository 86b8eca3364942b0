"""The command-line arguments of `train` and `export`. Imports nothing heavy: the console script's help needs it."""

import argparse
from pathlib import Path

AUGMENTS = ("none", "translation", "translation,cutout", "colour,translation", "colour,translation,cutout")
LOSSES = ("non-saturating", "minimax", "least-squares", "hinge", "wasserstein", "relativistic")

# Fields of trainer.config.Config that have an option of their own: name, type, choices, help.
OPTIONS: tuple[tuple[str, type, tuple[str, ...] | None, str], ...] = (
    ("preset", str, ("dcgan", "resize", "r3gan", "mlp"), "pair of networks; mlp for vectors"),
    ("conditional", bool, None, "tell G and D the class; needs labels"),
    ("augment", str, AUGMENTS, f"DiffAugment, for small data: {'; '.join(AUGMENTS)}"),
    ("loss", str, LOSSES, "objective of both players"),
    ("prior", str, ("normal", "uniform"), "prior of z"),
    ("kimg", float, None, "thousands of real images to show"),
    ("seed", int, None, "of weights, data order and z"),
    ("z_dim", int, None, "length of z"),
    ("g_channels", int, None, "width of G"),
    ("g_hidden", int, None, "units of a layer between z and the first feature map, of dcgan and resize; 0 for none"),
    ("d_channels", int, None, "width of D"),
    ("d_hidden", int, None, "units of D's fully connected layer; of mlp's D how many Fourier features"),
    ("blocks", int, None, "residual blocks at each resolution, of r3gan; hidden layers, of mlp"),
    ("noise_max", float, None, "widest noise that D sees vectors through, 0 for none"),
    ("noise_min", float, None, "narrowest"),
    ("batch_size", int, None, "images a step"),
    ("g_lr", float, None, "learning rate of G"),
    ("d_lr", float, None, "learning rate of D"),
    ("lr_decay_start", float, None, "share of the run after which the learning rates fall, 1 for never"),
    ("decay", str, ("linear", "cosine"), "how they fall"),
    ("lr_end", float, None, "the last learning rates, as a share of the first"),
    ("gamma_end", float, None, "the last weights of R1 and R2, likewise"),
    ("beta1", float, None, "of Adam"),
    ("beta2", float, None, "of Adam"),
    ("beta2_end", float, None, "the last beta2"),
    ("d_norm", str, ("batch", "none", "spectral"), "normalisation in D"),
    ("r1_gamma", float, None, "weight of R1 on real images, 0 for none"),
    ("r2_gamma", float, None, "weight of R2 on generated images, 0 for none"),
    ("r1_interval", int, None, "steps of D between those with R1 or R2"),
    ("gp_lambda", float, None, "weight of the gradient penalty, 0 for none"),
    ("d_period", int, None, "how long D trains while G is frozen"),
    ("g_period", int, None, "how long G trains while D is frozen"),
    ("period_unit", str, ("steps", "epochs"), "what periods are counted in"),
    ("ema_half_life_kimg", float, None, "half-life of the average of G's weights"),
    ("precision", str, ("bf16", "fp32"), "of the arithmetic; bf16 where the device multiplies in it"),
    ("device", str, ("auto", "cpu", "cuda"), "that trains; auto is cuda where there is one"),
    ("threads", int, None, "of torch, for all processes together, 0 for every core"),
    ("snapshot_kimg", float, None, "thousands of images between snapshots"),
    ("tensorboard", bool, None, "write event files for TensorBoard too (extra tensorboard)"),
    ("flip", bool, None, "show half of the images mirrored"),
    ("resolution", int, None, "pixels, for a folder of images"),
    ("max_skipped", float, None, "share of a folder's images that may be broken, 0..1"),
)


def add_train_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `genserve train`."""
    parser.add_argument(
        "data",
        nargs="?",
        help="a name (fashion-mnist, mnist, stacked-mnist, ring, grid), a folder of images, IDX, .npz, CSV",
    )
    parser.add_argument("--resume", type=Path, metavar="R", help="go on with the run in folder R")
    parser.add_argument("--run-dir", type=Path, metavar="R", help="folder of the run (default: runs/NNN-data)")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings: TOML, JSON or a run's config.json; options below override",
    )
    parser.add_argument(
        "--sweep",
        action="append",
        metavar="FIELD=V,V,...",
        help="short trainings with each value, 0.3x meaning a multiple; the best is kept (lr=0.5x,1x,2x, gamma=...)",
    )
    parser.add_argument("--sweep-kimg", type=float, metavar="K", help="length of each of them (default: kimg / 10)")
    for name, kind, choices, text in OPTIONS:
        flag = f"--{name.replace('_', '-')}"
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            metavar = "KIND[,KIND...]" if choices is AUGMENTS else None
            parser.add_argument(flag, type=kind, choices=choices, metavar=metavar, help=text)


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `genserve export`."""
    parser.add_argument("run_dir", type=Path, metavar="R", help="folder of the run")
    parser.add_argument(
        "--checkpoint", type=float, metavar="K", help="snapshot at K kimg (default: best validation FD)"
    )
    parser.add_argument("--reason", help="why a person picks this checkpoint; kept in the history")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: R/export/model.onnx")
