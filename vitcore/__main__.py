# SPDX-License-Identifier: MIT
"""Train a Vision Transformer, test it, and let it name pictures (chapters 6 and 7).

python -m vitcore train mnist                       train on handwritten digits (4 minutes)
python -m vitcore eval out/mnist-seed0/model.safetensors
python -m vitcore predict out/mnist-seed0/model.safetensors my_digit.png
python -m vitcore train folder my_images            a sub-folder of pictures for each class
python -m vitcore train voc DIR                     or imagenet, coco: as unpacked in DIR
python -m vitcore recipes                           what can be trained, and how
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import inspect
import io
import os
import signal
import statistics
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from . import data, training
from ._inputs import to_pair
from .data import ImageDataset
from .data._inputs import check_share
from .export import FORMATS, export
from .recipes import RECIPES, Recipe, folder_recipe, get_recipe
from .records import RECORD, RunRecord, commit, recorded_command
from .runs import WEIGHTS, check_unseen, measures, train_recipe
from .training import CHECKPOINT, PRECISIONS, resolve_device, resolve_precision
from .vit import ViTConfig

FOLDER = "folder"  # the name of a data set that is a folder of one's own


def find_size(folder: Path) -> int:
    """The side for images of a folder: their median shorter side as a multiple of 8, 32 to 64."""
    from PIL import Image

    files = sorted(p for p in folder.glob("*/*") if p.suffix.lower() in data.IMAGE_SUFFIXES)
    sides = []
    for file in files[:: 1 + len(files) // 200]:
        with contextlib.suppress(OSError), Image.open(file) as image:
            sides.append(min(image.size))
    return min(64, max(32, int(statistics.median(sides)) // 8 * 8)) if sides else 64


def _load(args: argparse.Namespace, name: str, config: ViTConfig | None = None) -> ImageDataset:
    """The images of that name, or of the folder that was given, as the model wants them."""
    if args.images is None:
        return data.load_dataset(name, args.data, stand_in=True if args.stand_in else None)
    if name in data.STANDARD and config is not None:
        return data.load_standard(name, args.images, image_size=config.image_size)
    if config is None:
        return data.load_folder(args.images, image_size=find_size(Path(args.images).expanduser()))
    return data.load_folder(args.images, image_size=config.image_size, channels=config.in_channels)


def _name_unreadable(dataset: ImageDataset) -> None:
    """Say which pictures could not be read, if any."""
    if left_out := dataset.unreadable:
        some = ", ".join(left_out[:10]) + (", …" if len(left_out) > 10 else "")
        print(f"{len(left_out)} pictures could not be read and were left out: {some}")


@contextlib.contextmanager
def _processes(device: str) -> Iterator[tuple[int, int, torch.device]]:
    """Join the processes that torchrun started, where it did: (rank, how many, device).

    On CUDA each has the GPU of its own number. Only rank 0 prints.
    """
    where = resolve_device(device)
    if "LOCAL_RANK" not in os.environ:
        yield 0, 1, where
        return
    if where.type == "mps" or not distributed.is_available():
        wrong = f"several processes cannot train on {where.type} with this torch"
        raise ValueError(f"{wrong}: leave torchrun out, or use --device cpu.")
    if where.type == "cuda":
        where = resolve_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(where)
    distributed.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        rank, count = training.distributed_rank()
        with contextlib.redirect_stdout(io.StringIO() if rank else sys.stdout):
            yield rank, count, where
    finally:
        distributed.destroy_process_group()


def _choose_recipe(args: argparse.Namespace, dataset: ImageDataset | None = None) -> Recipe:
    """The recipe as the options change it; a folder's own one needs its images."""
    if dataset is None:
        recipe = get_recipe(args.dataset, args.recipe)
    elif args.recipe in (None, *RECIPES):
        recipe = RECIPES[args.recipe].fitted_to(dataset) if args.recipe else folder_recipe(dataset)
    else:
        raise ValueError(f"there is no recipe {args.recipe!r}: choose one of {', '.join(RECIPES)}.")
    recipe = recipe.quick() if args.quick else recipe
    changes = {name: getattr(args, name) for name in ("seed", "epochs", "precision")}
    return recipe.with_train(**{name: v for name, v in changes.items() if v is not None})


def _find_out(args: argparse.Namespace, name: str) -> Path:
    """The folder of the run; refused where it holds another, unless it is to be resumed."""
    variant = "-quick" if args.quick else ""
    out = args.out = Path(args.out or f"out/{name}{variant}-seed{args.seed}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a folder, and {out} is a file.")
    if not args.resume and any((out / f).exists() for f in (RECORD, WEIGHTS, CHECKPOINT)):
        raise ValueError(f"{out} already holds a run: add --resume, or choose another --out.")
    return out


def _is_finished(out: Path, recipe: Recipe, dataset: ImageDataset) -> bool:
    """Whether the folder holds this run, whole; ValueError where it holds another."""
    if not (out / RECORD).exists():
        return False
    done = RunRecord.read(out / RECORD)
    # A record keeps what it was written with; settings that came later have their defaults.
    same = Recipe.from_dict(done.recipe) == recipe.fitted_to(dataset)
    if not same or done.source != str(dataset.source):
        wrong = "a finished run of another recipe, seed or data"
        raise ValueError(f"{out} holds {wrong}: choose another --out.")
    if (out / WEIGHTS).exists():
        score = f"{dataset.score_name} {done.test_accuracy:.4f}"
        print(f"{out} holds this run, finished: test {score}.")
        return True
    if not (out / CHECKPOINT).exists():
        wrong = "the record of this run, but neither its weights nor a checkpoint to make them from"
        raise ValueError(f"{out} holds {wrong}: train it again in another --out.")
    return False


def run_train(args: argparse.Namespace) -> None:
    """Train a model by a recipe.

    The images are downloaded once and kept, unless --data names a folder that holds them. The
    folder --out receives

      model.safetensors       the weights of the epoch with the best validation accuracy
      record.json             what was done, on what, and how well it went
      checkpoint.safetensors  the state after the last epoch; --resume goes on from there

    examples:
      python -m vitcore train mnist --recipe mnist-long --seed 1 --out out/long
      python -m vitcore train mnist --stand-in --quick    no download, seconds: to see that it works
      torchrun --nproc-per-node 2 -m vitcore train cifar100 --recipe gpu     on two GPUs
    """
    own, code = args.dataset == FOLDER, commit()
    if (args.images is not None) != (own or args.dataset in data.STANDARD):
        wanted = "`train folder MY_IMAGES`, a named data set as `train mnist` or `train voc DIR`"
        raise ValueError(f"a folder of your own images is given as {wanted}.")
    if args.images is not None and args.quick:
        raise ValueError("--quick is for the named data sets: try a folder with --epochs 1.")
    with _processes(args.device) as (rank, processes, device):
        # A named recipe is looked at before any image is fetched; a folder's own follows from them.
        recipe = None if own else _choose_recipe(args)
        out = _find_out(args, recipe.name if recipe else Path(args.images).resolve().name)
        if rank:  # rank 0 fetches the images, or draws them, before the others look on the disk
            distributed.barrier()
        dataset = _load(args, args.dataset, recipe.model if recipe else None)
        if processes > 1 and not rank:
            distributed.barrier()
        recipe = recipe or _choose_recipe(args, dataset)
        if _is_finished(out, recipe, dataset):
            return
        precision = resolve_precision(recipe.train.precision, device)
        print(f"recipe {recipe.name}, seed {args.seed}, on {device}, {precision}")
        print(f"images: {dataset.source}")
        run = train_recipe(recipe, dataset, device=device, out=out, resume=args.resume)
        record = RunRecord.from_run(run, dataset, recorded_command(args.typed, processes), code)
        if not rank:
            record.write(out / RECORD)
        score = dataset.score_name
        print(
            f"test {score} {record.test_accuracy:.4f}, loss "
            f"{record.test_loss:.4f} on {record.test_images} images, with the weights of epoch "
            f"{record.best_epoch} (validation {score} {record.val_accuracy:.4f})"
            f"{dataset.source.note}; {record.parameters} parameters, "
            f"{record.wall_seconds:.0f} s of training"
        )
        for name, value in record.more.items():
            print(f"test {name.replace('_', ' ')} {value:.4f}")
        _name_unreadable(dataset)
        print(f"written: {out / WEIGHTS} and {out / RECORD}")


def run_eval(args: argparse.Namespace) -> None:
    """Score saved weights on the test images of the data set, or folder, that they know."""
    loaded = training.load_weights(args.weights, device=args.device)
    name = loaded.metadata.get("dataset")
    if args.images is None and name in (None, FOLDER, *data.STANDARD):
        wanted = "add the folder of images, `eval WEIGHTS MY_IMAGES`"
        raise ValueError(f"{args.weights} does not name a data set to test on: {wanted}.")
    dataset = _load(args, str(name), loaded.config)
    if list(dataset.classes) != loaded.classes:
        given = args.images or name
        raise ValueError(f"{args.weights} was trained on other classes than those of {given}.")
    note = dataset.source.note
    if "seen_images" not in loaded.metadata and name not in data.STANDARD:
        note += ", which these weights may have been trained on: they do not say what they saw"
    try:
        check_unseen(loaded, dataset.test)
    except ValueError:
        if not args.allow_seen:
            raise
        note += ", some of which these weights were trained or chosen on"
    batches = data.Batches(dataset.test, 500, mean=loaded.mean, std=loaded.std)
    scores = training.evaluate(loaded.model, batches, **measures(dataset))
    print(f"images: {dataset.source}")
    found = f"test {dataset.score_name} {scores['accuracy']:.4f}, loss {scores['loss']:.4f}"
    print(f"{found} on {scores['count']} images{note}")
    _name_unreadable(dataset)


def run_predict(args: argparse.Namespace) -> None:
    """Name pictures; for a model of MNIST's digits, prepared as MNIST's makers did.

    A model of several labels an image names all whose probability reaches --threshold.
    """
    check_share("--threshold", args.threshold)
    loaded = training.load_weights(args.weights, device=args.device)
    config, note = loaded.config, ""
    for path in args.pictures:
        if loaded.metadata.get("dataset") == "mnist":
            image, what = data.read_digit(path, to_pair(config.image_size)[0], config.in_channels)
            note = f" ({what})"
        else:
            image = data.read_image(path, config.image_size, config.in_channels)
        logits = training.predict(loaded.model, loaded.normalise(image[None]))
        several = loaded.metadata.get("multi_label", False)
        shares = logits.sigmoid() if several else logits.softmax(dim=1)
        values, indices = shares[0].topk(shares.shape[1] if several else min(3, shares.shape[1]))
        if several:
            count = int((values >= args.threshold).sum())
            note = "" if count else f" (below {args.threshold:.0%}: no class reaches it)"
            values, indices = values[: max(count, 1)], indices[: max(count, 1)]
        best = zip(indices.tolist(), values.tolist(), strict=True)
        guesses = ", ".join(f"{loaded.classes[index]} {share:.1%}" for index, share in best)
        print(f"{path}: {guesses}{note}")


def run_recipes(args: argparse.Namespace) -> None:
    """List the recipes."""
    for recipe in RECIPES.values():
        train, model = recipe.train, recipe.model
        more = ", ".join(filter(None, (recipe.augment, recipe.mix))) or "none"
        print(
            f"{recipe.name} (train {recipe.dataset}): {recipe.note}\n    patch {model.patch_size}, "
            f"width {model.dim}, depth {model.depth}, {model.heads} heads; {train.epochs} epochs "
            f"of {train.optimizer} at {train.lr:g}, batch {train.batch_size}, augmentation {more}"
        )


def run_export(args: argparse.Namespace) -> None:
    """Write a copy of saved weights for ONNX Runtime, torch.export or, in float16, a web page."""
    half = not getattr(args, "float32", False)
    size = export(args.weights, args.file, getattr(args, "format", "web"), half=half)
    print(f"wrote {args.file}: {size / 1e3:.0f} kB")


_FORMAT: dict[str, Any] = {"choices": FORMATS, "default": "onnx"}
_MODULES: dict[str, Any] = {"dest": "modules", "action": "append", "default": []}
# By name: what stands for the value (N: a whole number; none: a switch), the help, and the rest.
ARGUMENTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dataset": (
        "DATASET",
        "a data set with recipes, such as mnist, or folder, imagenet, voc, coco",
        {},
    ),
    "weights": ("WEIGHTS", "a model.safetensors that train wrote", {}),
    "images": (
        "FOLDER",
        "of your own images, a sub-folder for each class; or of a named set",
        {"nargs": "?"},
    ),
    "pictures": ("IMAGE", "picture files", {"nargs": "+"}),
    "file": ("OUT", "the file to write", {}),
    "--format": ("F", "onnx (default), int8, torch or web", _FORMAT),
    "--float32": ("", "keep full precision, at twice the size", {}),
    "--recipe": ("NAME", "see `python -m vitcore recipes`", {}),
    "--out": ("DIR", "default: out/RECIPE-seedN", {}),
    "--epochs": ("N", "instead of the recipe's number", {}),
    "--seed": ("N", "default: 0", {"default": 0}),
    "--precision": ("P", "fp32, bf16, fp16 or auto, not the recipe's", {"choices": PRECISIONS}),
    "--resume": ("", "go on from the checkpoint in --out", {}),
    "--quick": ("", "two epochs on a few hundred images: only to try it", {}),
    "--allow-seen": ("", "go on where the weights saw test images in training", {}),
    "--data": ("DIR", "folder that holds NAME.npz, e.g. mnist.npz", {}),
    "--stand-in": ("", "draw images, and say so, where none are on disk or cached", {}),
    "--threshold": ("P", "of a model of several labels", {"type": float, "default": 0.5}),
    "--device": ("D", "auto (cuda, else mps, else cpu), cpu, cuda, mps", {"default": "auto"}),
    "--threads": ("N", "CPU threads; default: all cores", {}),
    "--import": ("MODULE", "first: one that registers parts or recipes of your own", _MODULES),
}
_PLACE = "--data --stand-in --device --threads"
_TRAIN = "dataset images --recipe --out --epochs --seed --precision --resume --quick"

COMMANDS = {
    "train": (run_train, f"{_TRAIN} {_PLACE}"),
    "eval": (run_eval, f"weights images --allow-seen {_PLACE}"),
    "predict": (run_predict, "weights pictures --threshold --device --threads"),
    "recipes": (run_recipes, ""),
    "export": (run_export, "weights file --format"),
    "export-web": (run_export, "weights file --float32"),
}


def _parser() -> argparse.ArgumentParser:
    # Abbreviated options would slip past the cleaning of the recorded command.
    style: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter}
    style["allow_abbrev"] = False
    parser = argparse.ArgumentParser("python -m vitcore", description=__doc__, **style)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (run, arguments) in COMMANDS.items():
        text = inspect.getdoc(run) or ""
        command = commands.add_parser(name, help=text.split("\n")[0], description=text, **style)
        command.set_defaults(run=run)
        for argument in [*arguments.split(), "--import"]:
            value, summary, more = ARGUMENTS[argument]
            kind: dict[str, Any] = {"metavar": value} if value else {"action": "store_true"}
            kind |= {"type": int} if value == "N" else {}
            command.add_argument(argument, help=summary, **{**kind, **more})
    return parser


def _prepare(args: argparse.Namespace) -> None:
    """What every command does first: import modules of the user's own, and set the threads."""
    for name in args.modules:
        try:
            importlib.import_module(name)
        except ImportError as error:
            wanted = "the name of a module without .py, and start in the folder that holds it"
            raise ValueError(f"--import {name} failed ({error}): give {wanted}.") from error
    threads, cores = getattr(args, "threads", None), os.cpu_count() or 1
    if threads is not None:
        if not 1 <= threads <= cores:
            raise ValueError(f"--threads is {threads}; give 1 to {cores}, this machine's cores.")
        torch.set_num_threads(threads)


def _is_ours(error: BaseException) -> bool:
    """Whether vitcore raised it, with a sentence for the reader, and not a fault further down."""
    place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return isinstance(error, OSError) or place.is_relative_to(Path(__file__).parent)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the status is 0, 2 after an error, 130 after Ctrl-C or SIGTERM."""
    args = _parser().parse_args(arguments)
    args.typed = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _prepare(args)
        args.run(args)
    except KeyboardInterrupt as interrupt:
        print(f"\n{str(interrupt) or 'stopped.'}", file=sys.stderr)
        if args.command == "train" and args.out and Path(args.out, CHECKPOINT).exists():
            print("The same command with --resume goes on from there.", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        if not _is_ours(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    # Schedulers and `kill` end a process by SIGTERM; it ends a command as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
