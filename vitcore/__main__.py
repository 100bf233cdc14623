# SPDX-License-Identifier: MIT
"""The command line: `python -m vitcore train`, `eval`, `predict` and `recipes`; see chapter 6."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from . import _cli
from .recipes import RECIPES
from .training import CHECKPOINT, PRECISIONS

DESCRIPTION = """\
Train a Vision Transformer, test it, and let it name pictures.

  python -m vitcore train mnist                       train on handwritten digits (4 minutes)
  python -m vitcore eval out/mnist-seed0/model.safetensors
  python -m vitcore predict out/mnist-seed0/model.safetensors my_digit.png
  python -m vitcore train folder my_images            a sub-folder of pictures for each class
  python -m vitcore recipes                           what can be trained, and how
"""

TRAIN = """\
Train a model by a recipe. The images are downloaded once and kept, unless --data names a folder
that holds them. The folder --out receives

  model.safetensors       the weights of the epoch with the best validation accuracy
  record.json             what was done, on what, and how well it went
  checkpoint.safetensors  the state after the last epoch; --resume goes on from there
"""

TRAIN_EXAMPLES = """\
examples:
  python -m vitcore train mnist
  python -m vitcore train mnist --recipe mnist-long --seed 1 --out out/long
  python -m vitcore train folder my_images            the recipe follows from the images
  python -m vitcore train mnist --resume              go on after Ctrl-C or a power cut
  python -m vitcore train mnist --stand-in --quick    no download, seconds: to see that it works
  torchrun --nproc-per-node 2 -m vitcore train cifar100 --recipe gpu     on two GPUs
"""


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    # Abbreviated options would slip past the cleaning of the recorded command.
    parser = argparse.ArgumentParser(
        prog="python -m vitcore", description=DESCRIPTION, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, **options: Any) -> argparse.ArgumentParser:
        added = commands.add_parser(
            name, help=summary, formatter_class=raw, allow_abbrev=False, **options
        )
        added.add_argument(
            "--import",
            dest="modules",
            metavar="MODULE",
            action="append",
            default=[],
            help="import this module first: one that registers recipes, an attention or a patch "
            "embedding of your own",
        )
        return added

    def add_place(to: argparse.ArgumentParser) -> None:
        to.add_argument("--data", metavar="DIR", help="folder that holds NAME.npz, e.g. mnist.npz")
        to.add_argument(
            "--stand-in",
            action="store_true",
            help="where the images are neither on disk nor cached, draw a stand-in instead of "
            "downloading them; its results say that they are from a stand-in",
        )

    def add_device(to: argparse.ArgumentParser) -> None:
        to.add_argument(
            "--device",
            default="auto",
            metavar="D",
            help="auto (cuda, else mps, else cpu), cpu, cuda, mps",
        )
        to.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")

    own = "for images of your own: the folder that has a sub-folder of them for each class"
    train = add("train", "train a model", description=TRAIN, epilog=TRAIN_EXAMPLES)
    datasets = sorted({recipe.dataset for recipe in RECIPES.values()})
    train.add_argument("dataset", metavar="DATASET", help=f"{', '.join(datasets)} or folder")
    train.add_argument("images", metavar="FOLDER", nargs="?", help=own)
    train.add_argument("--recipe", metavar="NAME", help="see `python -m vitcore recipes`")
    train.add_argument("--out", metavar="DIR", help="default: out/RECIPE-seedN")
    train.add_argument("--epochs", type=int, metavar="N", help="instead of the recipe's number")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    train.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="instead of the recipe's; bf16 saves time on CPUs that compute in it, and costs time "
        "on others",
    )
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    train.add_argument(
        "--quick", action="store_true", help="two epochs on a few hundred images: only to try it"
    )
    add_place(train)
    add_device(train)

    test = add("eval", "test saved weights", description="Accuracy and loss on the test images.")
    test.add_argument("weights", metavar="WEIGHTS", help="a model.safetensors that train wrote")
    test.add_argument("images", metavar="FOLDER", nargs="?", help=own)
    test.add_argument(
        "--allow-seen",
        action="store_true",
        help="go on where test images are among those that the weights were trained or chosen on",
    )
    add_place(test)
    add_device(test)

    guess = add(
        "predict",
        "name pictures",
        description="Name any picture files: they are resized to what the model was trained on, "
        "and its\nthree best guesses are printed with their probabilities.",
    )
    guess.add_argument("weights", metavar="WEIGHTS", help="a model.safetensors that train wrote")
    guess.add_argument("images", metavar="IMAGE", nargs="+", help="picture files")
    add_device(guess)

    add("recipes", "list the recipes", description="The recipes, by data set.")
    return parser


def _is_ours(error: BaseException) -> bool:
    """Whether vitcore raised it, with a sentence for the reader, and not a fault further down."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


class _Ended(KeyboardInterrupt):
    """SIGTERM, by which schedulers and `kill` end a process; it ends a command as Ctrl-C does."""


@contextlib.contextmanager
def _endable() -> Iterator[None]:
    def end(number: int, frame: Any) -> None:
        raise _Ended

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _import(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"--import {name} failed ({error}): give the name of a module without .py, and "
                "start the command in the folder that holds it."
            ) from error


def _run(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    _import(args.modules)
    if getattr(args, "threads", None) is not None:
        cores = os.cpu_count() or 1
        if not 1 <= args.threads <= cores:
            raise ValueError(
                f"--threads is {args.threads}; give 1 to {cores}, the cores of this machine."
            )
        torch.set_num_threads(args.threads)
    if args.command == "train":
        return _cli.run_train(args, arguments)
    if args.command == "recipes":
        return _cli.run_recipes()
    return _cli.run_eval(args) if args.command == "eval" else _cli.run_predict(args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the status is 0, 2 after an error, 130 after Ctrl-C, 143 after SIGTERM."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(arguments)
    try:
        with _endable():
            return _run(args, arguments)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'stopped.'}", file=sys.stderr)
        if args.command == "train" and args.out and Path(args.out, CHECKPOINT).exists():
            print("The same command with --resume goes on from there.", file=sys.stderr)
        ended = isinstance(interrupt, _Ended) or isinstance(interrupt.__cause__, _Ended)
        return 128 + (signal.SIGTERM if ended else signal.SIGINT)
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
