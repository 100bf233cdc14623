# SPDX-License-Identifier: MIT
"""The command line: `python -m vitcore train`, `eval`, `predict` and the rest; see chapter 6."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
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

EXAMPLES = """\
examples:
  python -m vitcore train mnist --recipe mnist-long --seed 1 --out out/long
  python -m vitcore train mnist --resume              go on after Ctrl-C or a power cut
  python -m vitcore train mnist --stand-in --quick    no download, seconds: to see that it works
  torchrun --nproc-per-node 2 -m vitcore train cifar100 --recipe gpu     on two GPUs
"""

_DATASETS = ", ".join(sorted({recipe.dataset for recipe in RECIPES.values()}))

# By name: what stands for the value (N: a whole number; none: a switch), and the help.
ARGUMENTS = {
    "dataset": ("DATASET", f"{_DATASETS} or folder"),
    "weights": ("WEIGHTS", "a model.safetensors that train wrote"),
    "images": ("FOLDER", "for images of your own: the folder with a sub-folder for each class"),
    "pictures": ("IMAGE", "picture files"),
    "file": ("OUT", "the file to write"),
    "--recipe": ("NAME", "see `python -m vitcore recipes`"),
    "--out": ("DIR", "default: out/RECIPE-seedN"),
    "--epochs": ("N", "instead of the recipe's number"),
    "--seed": ("N", "default: 0"),
    "--precision": ("P", "fp32, bf16, fp16 or auto, instead of the recipe's; bf16 saves time on "
                    "CPUs that compute in it, and costs time on others"),
    "--resume": ("", "go on from the checkpoint in --out"),
    "--quick": ("", "two epochs on a few hundred images: only to try it"),
    "--allow-seen": ("", "go on where test images are among those that the weights were trained "
                     "or chosen on"),
    "--float32": ("", "keep full precision, at twice the size"),
    "--data": ("DIR", "folder that holds NAME.npz, e.g. mnist.npz"),
    "--stand-in": ("", "where the images are neither on disk nor cached, draw a stand-in instead "
                   "of downloading them; its results say that they are from a stand-in"),
    "--device": ("D", "auto (cuda, else mps, else cpu), cpu, cuda, mps"),
    "--threads": ("N", "CPU threads; default: all cores"),
    "--import": ("MODULE", "import this module first: one that registers recipes, an attention or "
                 "a patch embedding of your own"),
}  # fmt: skip
_DETAILS: dict[str, dict[str, Any]] = {
    "images": {"nargs": "?"},
    "pictures": {"nargs": "+"},
    "--seed": {"default": 0},
    "--precision": {"choices": PRECISIONS},
    "--device": {"default": "auto"},
    "--import": {"dest": "modules", "action": "append", "default": []},
}
_PLACE = "--data --stand-in --device --threads"

# By command: what it does in a few words, its description and examples, and its arguments.
COMMANDS = {
    "train": ("train a model", TRAIN, EXAMPLES, "dataset images --recipe --out --epochs --seed "
              f"--precision --resume --quick {_PLACE}"),
    "eval": ("test saved weights", "Accuracy and loss on the test images.", "",
             f"weights images --allow-seen {_PLACE}"),
    "predict": ("name pictures", "Name any picture files; a model of MNIST gets digits prepared as "
                "MNIST's were.", "", "weights pictures --device --threads"),
    "export-web": ("write saved weights for a web page", "A copy for a page, in float16.", "",
                   "weights file --float32"),
    "recipes": ("list the recipes", "The recipes, by data set.", "", ""),
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    # Abbreviated options would slip past the cleaning of the recorded command.
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    style["allow_abbrev"] = False
    parser = argparse.ArgumentParser("python -m vitcore", description=DESCRIPTION, **style)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, description, epilog, arguments) in COMMANDS.items():
        text: dict[str, Any] = {"help": summary, "description": description, "epilog": epilog}
        command = commands.add_parser(name, **text, **style)
        for argument in [*arguments.split(), "--import"]:
            value, summary = ARGUMENTS[argument]
            kind: dict[str, Any] = {"metavar": value} if value else {"action": "store_true"}
            kind |= {"type": int} if value == "N" else {}
            command.add_argument(argument, help=summary, **kind, **_DETAILS.get(argument, {}))
    return parser


def _is_ours(error: BaseException) -> bool:
    """Whether vitcore raised it, with a sentence for the reader, and not a fault further down."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(Path(__file__).parent)


class _Ended(KeyboardInterrupt):
    """SIGTERM, by which schedulers and `kill` end a process; it ends a command as Ctrl-C does."""


def _end(number: int, frame: Any) -> None:
    raise _Ended


def _run(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    for name in args.modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ValueError(
                f"--import {name} failed ({error}): give the name of a module without .py, and "
                "start the command in the folder that holds it."
            ) from error
    threads, cores = getattr(args, "threads", None), os.cpu_count() or 1
    if threads is not None:
        if not 1 <= threads <= cores:
            raise ValueError(f"--threads is {threads}; give 1 to {cores}, this machine's cores.")
        torch.set_num_threads(threads)
    if args.command == "train":
        return _cli.run_train(args, arguments)
    return getattr(_cli, f"run_{args.command.replace('-', '_')}")(args)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the status is 0, 2 after an error, 130 after Ctrl-C, 143 after SIGTERM."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(arguments)
    before = signal.getsignal(signal.SIGTERM)
    handled = threading.current_thread() is threading.main_thread()
    try:
        if handled:
            signal.signal(signal.SIGTERM, _end)
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
    finally:
        if handled:
            signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
