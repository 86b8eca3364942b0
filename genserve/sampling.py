"""`genserve sample` and `genserve interpolate`: what the server would answer, into a file. Knows nothing of HTTP.

The same digest, numerics and seed give the same pixels here as there: both check the golden samples first and draw z
in the same place.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from genserve.context import readable_repository
from models.batches import generate_all
from models.errors import Invalid
from models.generator import Generator, Samples
from models.latents import check_classes, check_truncation, draw, draw_untruncated, truncate, walk
from models.opening import open_version
from serving import encoders
from serving.sizes import check_answer

MAX_SAMPLES = 65536
Encode = Callable[[Samples], bytes]


def sample(args: argparse.Namespace) -> int:
    """Draw samples; several images in a picture format become a grid."""
    if not 1 <= args.num_images <= MAX_SAMPLES:
        raise Invalid(f"{args.num_images} is outside 1 .. {MAX_SAMPLES}", field="num_images")
    version = readable_repository().resolve(args.model)
    generator = open_version(version).generator
    seeds = [(args.seed + i) % 2**32 for i in range(args.num_images)]
    if args.seed < 0 or args.seed >= 2**32:
        raise Invalid(f"{args.seed} is outside 0 .. {2**32 - 1}", field="seed")
    names = [f"{i:05d}-{seed}.png" for i, seed in enumerate(seeds)]
    encode = _encoder(
        args.output,
        generator,
        {
            ".png": lambda s: encoders.png(encoders.grid(s)),
            ".webp": lambda s: encoders.webp(encoders.grid(s)),
            ".jpg": lambda s: encoders.jpeg(encoders.grid(s)),
            ".zip": lambda s: encoders.archive(s, names),
        },
    )
    check_answer(_form(args.output), generator.signature, len(seeds), field="num_images")
    drawn = draw(generator.signature, seeds, class_idx=args.class_idx, truncation=args.truncation)
    Path(args.output).write_bytes(encode(generate_all(generator, *drawn)))
    print(f"{args.output}: {len(seeds)} samples of {version}, seeds {seeds[0]} .. {seeds[-1]}")
    return 0


def interpolate(args: argparse.Namespace) -> int:
    """Walk between the latents of seeds."""
    version = readable_repository().resolve(args.model)
    generator = open_version(version).generator
    signature = generator.signature
    check_truncation(signature.prior, args.truncation)
    if not 1 <= args.fps <= 1000:
        raise Invalid(f"{args.fps} is outside 1 .. 1000", field="fps")
    keys = draw_untruncated(signature, args.seeds)
    if args.frames * len(args.seeds) > MAX_SAMPLES:
        raise Invalid(f"{args.frames} x {len(args.seeds)} frames are more than {MAX_SAMPLES}", field="frames")
    path = walk(keys, args.frames, loop=args.loop, method=args.method, prior=signature.prior)
    z = path.astype(np.float32) if args.truncation is None else truncate(path, signature.prior, args.truncation)
    class_idx = args.class_idx
    if signature.classes is not None and class_idx is None:
        first = draw(signature, args.seeds[:1]).class_idx
        class_idx = None if first is None else int(first[0])
    encode = _encoder(
        args.output,
        generator,
        {
            ".webp": lambda s: encoders.animated_webp(s, args.fps),
            ".gif": lambda s: encoders.gif(s, args.fps),
            ".apng": lambda s: encoders.apng(s, args.fps),
            ".png": lambda s: encoders.png(encoders.strip(s)),
            ".zip": lambda s: encoders.archive(s, [f"{i:05d}.png" for i in range(len(s))]),
        },
    )
    check_answer(_form(args.output), signature, len(z), field="frames", walk=True)
    Path(args.output).write_bytes(encode(generate_all(generator, z, check_classes(signature, class_idx, len(z)))))
    print(f"{args.output}: {len(z)} frames of {version}")
    return 0


def _form(output: str) -> str:
    """The format that a file's ending stands for, as the server names it."""
    suffix = Path(output).suffix.lower().removeprefix(".")
    return "jpeg" if suffix == "jpg" else suffix


def _encoder(output: str, generator: Generator, pictures: Mapping[str, Encode]) -> Encode:
    """The encoder that a file's ending asks for."""
    known: dict[str, Encode] = {".npy": encoders.npy}
    if generator.signature.kind == "image":
        known.update(pictures)
    suffix = Path(output).suffix.lower()
    if suffix not in known:
        raise Invalid(f"{suffix or 'no ending'!r} is none of {', '.join(known)}", field="output")
    return known[suffix]
