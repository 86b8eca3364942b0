"""The console script: which subcommands there are, and which function each runs. Knows nothing of what they do.

Functions are named, not imported: only the subcommand that runs pays for its imports.

    exit status   0 done   1 refused: an answer, not an accident   2 bad usage or input   3 something failed
                  130 interrupted
"""

import argparse
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from models.errors import GenserveError, told
from models.version import code_version
from serving.arguments import add_serve_arguments
from trainer.arguments import add_export_arguments, add_train_arguments
from trainer.extractor_arguments import add_import_arguments, add_ladder_arguments
from trainer.extractor_arguments import add_train_arguments as add_extractor_arguments
from trainer.report_arguments import add_report_arguments
from trainer.saddle_arguments import add_saddle_arguments

EXTRAS = {
    "torch": "train",
    "onnxscript": "train",
    "matplotlib": "train",
    "accelerate": "train",
    "tensorboardX": "tensorboard",
}
REFERENCE_HELP = "NAME (its champion), NAME@3, NAME@champion or NAME@candidate"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit status."""
    args = build_parser().parse_args(argv)
    module, _, function = args.run.partition(":")
    try:
        run: Callable[[argparse.Namespace], int] = getattr(importlib.import_module(module), function)
        return run(args)
    except GenserveError as error:
        print(f"genserve: {error}", file=sys.stderr)
        return error.exit_status
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        print(f"genserve: {error.name} is not installed. Mend: pip install 'genserve[{extra}]'", file=sys.stderr)
        return 3
    except BrokenPipeError:  # the reader of our output left, as `head` does
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"genserve: {told(error)}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        print("genserve: interrupted", file=sys.stderr)
        return 130
    except Exception:  # a mistake of ours: told in full, and never taken for a refusal
        traceback.print_exc()
        return 3


def build_parser() -> argparse.ArgumentParser:
    """The whole tree of subcommands."""
    parser = argparse.ArgumentParser(
        prog="genserve",
        description="Trains, judges, promotes and serves generators.",
        epilog="Exit status: 0 done, 1 refused, 2 bad usage or input, 3 something failed, 130 interrupted.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add(commands, "train", "trainer.commands:train", "train a GAN on a data set", add_train_arguments)
    _add(commands, "export", "trainer.commands:export", "export a run's generator to ONNX", add_export_arguments)
    _add(commands, "report", "trainer.report:report", "write a page that tells a run's story", add_report_arguments)
    _add(commands, "runs", "genserve.runs:runs", "list runs, comparable", _runs)
    _add(commands, "publish", "genserve.publishing:publish", "add a generator to the repository", _publish)
    _add(commands, "evaluate", "genserve.judging:evaluate", "measure a version on the validation split", _evaluate)
    _add(commands, "gate", "genserve.judging:gate", "judge a version on the gate split; keeps the verdict", _gate)
    _add(commands, "policy", "genserve.judging:policy", "print what a model is judged by", _policy)
    _add(commands, "optimize", "genserve.optimizing:optimize", "make faster variants for this machine", _optimize)
    _add(commands, "promote", "genserve.promoting:promote", "make a judged version the champion", _promote)
    _add(commands, "rollback", "genserve.promoting:rollback", "return to the champion before", _rollback)
    _add(commands, "retire", "genserve.promoting:retire", "remove a version's files for good", _retire)
    _add(commands, "history", "genserve.listing:history", "who did what to a model, when, why", _history)
    _add(commands, "models", "genserve.listing:models", "list models, versions and verdicts", _models)
    _add(commands, "verify", "genserve.listing:verify", "check every file of the repository", _verify)
    _add(commands, "card", "genserve.carding:card", "write a version's model card", _card)
    _add(commands, "sign", "genserve.signing:sign", "sign verdicts that are there already", _sign)
    key = commands.add_parser("key", help="keys that verdicts are signed with")
    keys = key.add_subparsers(metavar="COMMAND", required=True)
    _add(keys, "new", "genserve.signing:key_new", "make a private key; prints its public key", _key)
    _add(keys, "show", "genserve.signing:key_show", "print the public key of a private one", _key)
    _add(commands, "sample", "genserve.sampling:sample", "draw samples into a file, as the server would", _sample)
    _add(commands, "interpolate", "genserve.sampling:interpolate", "walk between seeds into a file", _interpolate)
    _add(commands, "serve", "serving.server:serve", "serve the champions over HTTP", add_serve_arguments)
    _add(commands, "doctor", "genserve.doctor:doctor", "report what this machine has, and the mend for each fault")
    _add(
        commands, "saddle", "trainer.saddle:saddle", "draw the theory of the game from real runs", add_saddle_arguments
    )
    extractor = commands.add_parser("extractor", help="feature extractors, which judging measures with")
    inner = extractor.add_subparsers(metavar="COMMAND", required=True)
    _add(inner, "train", "genserve.extracting:train", "train one on images, and try it", add_extractor_arguments)
    _add(
        inner, "import-inception", "genserve.extracting:import_inception",
        "make the one that FID is defined by from its weights", add_import_arguments,
    )  # fmt: skip
    _add(inner, "ladder", "genserve.extracting:ladder", "try one on known faults", add_ladder_arguments)
    _add(inner, "list", "genserve.extractor_listing:list_extractors", "list those that are here", _extractors)
    _add(inner, "show", "genserve.extractor_listing:show_extractor", "show one with its ladder", _extractor)
    return parser


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: str,
    summary: str,
    arguments: Callable[[argparse.ArgumentParser], None] | None = None,
) -> None:
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(run=run)
    if arguments is not None:
        arguments(parser)


def _publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="FILE_OR_RUN", help="an ONNX file, or the folder of an exported run")
    parser.add_argument("--name", required=True, help="of the model: a-z, 0-9, '.', '_' and '-'")
    parser.add_argument("--prior", choices=("normal", "uniform"), help="what z is drawn from; needed for foreign files")
    parser.add_argument("--data", help="what it is judged against; without it, it never passes the gate")
    parser.add_argument(
        "--resolution", type=int, metavar="R", help="pixels, for a folder of images (default: the run's)"
    )
    parser.add_argument(
        "--max-skipped",
        type=float,
        metavar="S",
        help="share of a folder's images that may be broken (default: the run's)",
    )
    parser.add_argument("--extractor", help="feature extractor to judge with: a name or a folder")
    parser.add_argument(
        "--classes", type=int, metavar="K", help="classes of a conditional foreign file whose data has no labels"
    )
    parser.add_argument("--licence", help="of the data it was trained on")
    parser.add_argument("--why", help="a note for the history")


def _policy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a model")
    parser.add_argument("--json", action="store_true", help="for programs")


def _card(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", help=REFERENCE_HELP)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="default: NAME-NUMBER-card")
    parser.add_argument("--public", action="store_true", help="leave out who did what, and where data lay")
    parser.add_argument("--quick", action="store_true", help="do not look for the nearest training images anew")


def _evaluate(parser: argparse.ArgumentParser) -> None:
    _measured(parser)
    parser.add_argument("--num-fakes", type=int, metavar="N", help="samples to draw (default: the policy's 50,000)")
    parser.add_argument("--extractor", help="another feature extractor than the gate's: a name or a folder")


def _gate(parser: argparse.ArgumentParser) -> None:
    _measured(parser, "NAME@candidate or NAME@3; the champion has its verdict")


def _measured(parser: argparse.ArgumentParser, which: str = REFERENCE_HELP) -> None:
    parser.add_argument("version", metavar="NAME@VERSION", help=which)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _optimize(parser: argparse.ArgumentParser) -> None:
    _measured(parser)
    parser.add_argument("--only", nargs="+", metavar="METHOD", help="of int8, int8-edges, windows, bf16, bf16-graph")


def _promote(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", metavar="NAME@VERSION", help=REFERENCE_HELP)
    parser.add_argument("--why", help="the reason, for the history")
    parser.add_argument(
        "--variant",
        action="append",
        metavar="PROVIDER=NAME",
        help="the variant that serves a provider, or none; the default is the fastest that passed (repeatable)",
    )


def _rollback(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the model")
    parser.add_argument("--why", help="the reason, for the history")


def _retire(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", metavar="NAME@VERSION", help=REFERENCE_HELP)
    parser.add_argument("--why", help="the reason, for the history")


def _models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="one model, with its history")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _extractors(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _extractor(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("extractor", metavar="EXTRACTOR", help="a name, name@digest or a folder")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="FOLDER", help="default: runs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the model")
    parser.add_argument("--promotions", action="store_true", help="only what changed the champion")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="only this model")
    parser.add_argument(
        "--key",
        action="append",
        metavar="KEY_OR_FILE",
        help="a public key, or a file of them, that must have signed; beats GENSERVE_TRUSTED_KEYS (repeatable)",
    )


def _sign(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("version", metavar="NAME@VERSION", help=REFERENCE_HELP)
    parser.add_argument("--why", help="the reason, for the history")


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the private key's file, PEM")


def _sample(parser: argparse.ArgumentParser) -> None:
    _drawing(parser)
    parser.add_argument("--seed", type=int, default=0, help="0 .. 4294967295; sample i has seed + i (default: 0)")
    parser.add_argument("-n", "--num-images", type=int, default=1, metavar="K", help="how many (default: 1)")


def _interpolate(parser: argparse.ArgumentParser) -> None:
    _drawing(parser)
    parser.add_argument("--seeds", type=int, nargs="+", required=True, metavar="SEED", help="of the key frames, >= 2")
    parser.add_argument("--frames", type=int, default=24, help="from one key frame to the next (default: 24)")
    parser.add_argument("--fps", type=int, default=24, help="frames per second (default: 24)")
    parser.add_argument("--loop", action="store_true", help="walk back to the first")
    parser.add_argument("--method", choices=("auto", "slerp", "linear"), default="auto", help="(default: auto)")


def _drawing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="NAME", help=REFERENCE_HELP)
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="its ending says the format")
    parser.add_argument("--class-idx", type=int, help="class of all samples, for a conditional generator")
    parser.add_argument("--truncation", type=float, help="normal prior (0, 8], uniform (0, 1]")


class _Version(argparse.Action):
    """Prints the version, which is looked up only when asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"genserve {code_version()}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
