# SPDX-License-Identifier: MIT
"""The command line: `python -m vitcore train`, `eval`, `predict` and `recipes`; see chapter 6."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

DESCRIPTION = """\
Train a Vision Transformer, test it, and let it name pictures.

  python -m vitcore train mnist                       train on handwritten digits (4 minutes)
  python -m vitcore eval out/mnist-seed0/model.safetensors
  python -m vitcore predict out/mnist-seed0/model.safetensors my_digit.png
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
  python -m vitcore train mnist --resume              go on after Ctrl-C or a power cut
  python -m vitcore train mnist --stand-in --quick    no download, seconds: to see that it works
  torchrun --nproc-per-node 2 -m vitcore train cifar100 --recipe gpu     on two GPUs
"""


def _parser() -> argparse.ArgumentParser:
    from .recipes import RECIPES
    from .training import PRECISIONS

    raw = argparse.RawDescriptionHelpFormatter
    # Abbreviated options would slip past the cleaning of the recorded command.
    parser = argparse.ArgumentParser(
        prog="python -m vitcore", description=DESCRIPTION, formatter_class=raw, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, summary: str, **options: Any) -> argparse.ArgumentParser:
        return commands.add_parser(
            name, help=summary, formatter_class=raw, allow_abbrev=False, **options
        )

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

    train = add("train", "train a model", description=TRAIN, epilog=TRAIN_EXAMPLES)
    datasets = sorted({recipe.dataset for recipe in RECIPES.values()})
    train.add_argument("dataset", metavar="DATASET", help=f"one of {', '.join(datasets)}")
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


def recorded_command(arguments: Sequence[str], processes: int = 1) -> str:
    """The command as typed, with DATA and OUT for folders, which say nothing elsewhere."""
    start = ["torchrun", "--nproc-per-node", str(processes)] if processes > 1 else ["python"]
    words = [*start, "-m", "vitcore"]
    stands_for = {"--data": "DATA", "--out": "OUT"}
    place = None
    for word in arguments:
        option, _, value = word.partition("=")
        if place is not None:
            words.append(place)
            place = None
        elif option in stands_for and value:
            words.append(f"{option}={stands_for[option]}")
        else:
            words.append(word)
            place = stands_for.get(word)
    return shlex.join(words)


def _load(name: str, args: argparse.Namespace) -> Any:
    from .data import load_dataset

    return load_dataset(name, args.data, stand_in=True if args.stand_in else None)


@contextlib.contextmanager
def _processes(device: str) -> Iterator[tuple[int, int, str]]:
    """Join the processes that torchrun started, where it did: (rank, how many, device).

    On CUDA each has the GPU of its own number. Only rank 0 prints.
    """
    if "LOCAL_RANK" not in os.environ:
        yield 0, 1, device
        return
    import torch
    from torch import distributed

    from .training import resolve_device

    where = resolve_device(device)
    if where.type == "mps" or not distributed.is_available():
        raise ValueError(
            f"several processes cannot train on {where.type} with this torch: leave torchrun out, "
            "or use --device cpu."
        )
    if where.type == "cuda":
        where = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        rank = distributed.get_rank()
        with contextlib.ExitStack() as stack:
            if rank:
                silence = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
                stack.enter_context(contextlib.redirect_stdout(silence))
            yield rank, distributed.get_world_size(), str(where)
    finally:
        distributed.destroy_process_group()


def _load_in_turn(name: str, args: argparse.Namespace, rank: int, processes: int) -> Any:
    """Rank 0 fetches the images, or draws them, before the others find them on the disk."""
    if processes == 1:
        return _load(name, args)
    from torch import distributed

    if rank:
        distributed.barrier()
    dataset = _load(name, args)
    if not rank:
        distributed.barrier()
    return dataset


def _train(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    with _processes(args.device) as (rank, processes, device):
        return _train_here(args, arguments, rank, processes, device)


def _train_here(
    args: argparse.Namespace, arguments: Sequence[str], rank: int, processes: int, place: str
) -> int:
    from .recipes import WEIGHTS, Recipe, get_recipe, train_recipe
    from .records import RECORD, RunRecord, commit
    from .training import CHECKPOINT, resolve_device, resolve_precision

    code = commit()
    recipe = get_recipe(args.dataset, args.recipe).with_train(seed=args.seed)
    if args.quick:
        recipe = recipe.quick()
    if args.epochs is not None:
        recipe = recipe.with_train(epochs=args.epochs)
    if args.precision is not None:
        recipe = recipe.with_train(precision=args.precision)
    device = resolve_device(place)
    variant = "-quick" if args.quick else ""
    out = Path(args.out or f"out/{recipe.name}{variant}-seed{args.seed}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, and {out} is a file.")
    if not args.resume and any((out / f).exists() for f in (RECORD, WEIGHTS, CHECKPOINT)):
        raise ValueError(
            f"{out} already holds a run: add --resume to go on with it, or choose another --out."
        )
    dataset = _load_in_turn(args.dataset, args, rank, processes)
    if (out / RECORD).exists():
        done = RunRecord.read(out / RECORD)
        # A record keeps what it was written with; settings that came later have their defaults.
        same = Recipe.from_dict(done.recipe) == recipe.fitted_to(dataset)
        if not same or done.source != str(dataset.source):
            raise ValueError(
                f"{out} holds a finished run of another recipe, seed or data: choose another --out."
            )
        print(f"{out} holds this run, finished: test accuracy {done.test_accuracy:.4f}.")
        return 0
    precision = resolve_precision(recipe.train.precision, device)
    print(f"recipe {recipe.name}, seed {args.seed}, on {device}, {precision}")
    print(f"images: {dataset.source}")
    run = train_recipe(recipe, dataset, device=device, out=out, resume=args.resume)
    record = RunRecord.from_run(run, dataset, recorded_command(arguments, processes), code)
    if rank:
        return 0
    record.write(out / RECORD)
    print(
        f"test accuracy {record.test_accuracy:.4f}, loss {record.test_loss:.4f} on "
        f"{record.test_images} images, with the weights of epoch {record.best_epoch} "
        f"(validation accuracy {record.val_accuracy:.4f}){dataset.source.note}; "
        f"{record.parameters} parameters, {record.wall_seconds:.0f} s of training"
    )
    for score, value in record.more.items():
        print(f"test {score.replace('_', ' ')} {value:.4f}")
    print(f"written: {out / WEIGHTS} and {out / RECORD}")
    return 0


def _eval(args: argparse.Namespace) -> int:
    from .data import Batches
    from .training import evaluate, load_weights, resolve_device

    device = resolve_device(args.device)
    loaded = load_weights(args.weights, device=device)
    name = loaded.metadata.get("dataset")
    if not name:
        raise ValueError(f"{args.weights} does not say which data set it was trained on.")
    dataset = _load(name, args)
    if list(dataset.classes) != loaded.classes:
        raise ValueError(f"{args.weights} was trained on other classes than those of {name}.")
    batches = Batches(dataset.test, 500, mean=loaded.mean, std=loaded.std, device=device)
    scores = evaluate(loaded.model, batches, device=device)
    print(f"images: {dataset.source}")
    print(
        f"test accuracy {scores['accuracy']:.4f}, loss {scores['loss']:.4f} "
        f"on {scores['count']} images{dataset.source.note}"
    )
    return 0


def _predict(args: argparse.Namespace) -> int:
    import torch

    from .data import read_image
    from .training import load_weights, predict, resolve_device

    device = resolve_device(args.device)
    loaded = load_weights(args.weights, device=device)
    digits = loaded.metadata.get("dataset") == "mnist"
    for path in args.images:
        image = read_image(path, loaded.config.image_size, loaded.config.in_channels)
        note = ""
        if digits:
            # MNIST's digits are light on dark, a digit on paper is dark on light.
            border = torch.ones(image.shape[-2:], dtype=torch.bool)
            border[1:-1, 1:-1] = False
            if image[:, border].float().median() > 127:
                image = 255 - image
                note = " (inverted: the model knows light digits on a dark ground)"
        logits = predict(loaded.model, loaded.normalise(image[None]), device=device)
        best = logits.softmax(dim=1)[0].topk(min(3, logits.shape[1]))
        guesses = ", ".join(
            f"{loaded.classes[index]} {probability:.1%}"
            for probability, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        )
        print(f"{path}: {guesses}{note}")
    return 0


def _recipes() -> int:
    from .recipes import RECIPES

    for recipe in RECIPES.values():
        train = recipe.train
        model = recipe.model
        print(f"{recipe.name} (train {recipe.dataset}): {recipe.note}")
        print(
            f"    patch {model.patch_size}, width {model.dim}, depth {model.depth}, "
            f"{model.heads} heads; {train.epochs} epochs of {train.optimizer} at {train.lr:g}, "
            f"batch {train.batch_size}, augmentation {recipe.augment or 'none'}"
            + (f", {recipe.mix}" if recipe.mix else "")
        )
    return 0


def _is_ours(error: BaseException) -> bool:
    """Whether vitcore raised it, with a sentence for the reader, and not a fault further down."""
    if isinstance(error, OSError):
        return True
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).parent == Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 2 after an error, 130 after Ctrl-C."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    args = _parser().parse_args(arguments)
    try:
        if getattr(args, "threads", None) is not None:
            import torch

            if args.threads < 1:
                raise ValueError(f"--threads must be at least 1, not {args.threads}.")
            torch.set_num_threads(args.threads)
        if args.command == "train":
            return _train(args, arguments)
        if args.command == "eval":
            return _eval(args)
        if args.command == "predict":
            return _predict(args)
        return _recipes()
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'stopped.'}", file=sys.stderr)
        if args.command == "train":
            print("The same command with --resume goes on from there.", file=sys.stderr)
        return 130
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        if not _is_ours(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
