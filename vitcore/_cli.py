# SPDX-License-Identifier: MIT
"""What each command of `python -m vitcore` does with its arguments; see __main__.py."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import distributed

from . import data, training
from ._inputs import to_pair
from .data import ImageDataset
from .export import export_web
from .recipes import RECIPES, Recipe, folder_recipe, get_recipe
from .records import RECORD, RunRecord, commit, recorded_command
from .runs import WEIGHTS, check_unseen, train_recipe
from .training import CHECKPOINT, LoadedModel, resolve_device, resolve_precision

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


def _load(args: argparse.Namespace, name: str, loaded: LoadedModel | None = None) -> ImageDataset:
    """The images of that name, or of the folder that was given, as a loaded model wants them."""
    if args.images is None:
        return data.load_dataset(name, args.data, stand_in=True if args.stand_in else None)
    if loaded is None:
        return data.load_folder(args.images, image_size=find_size(Path(args.images).expanduser()))
    config = loaded.config
    return data.load_folder(args.images, image_size=config.image_size, channels=config.in_channels)


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
            yield rank, distributed.get_world_size(), where
    finally:
        distributed.destroy_process_group()


def _choose_recipe(args: argparse.Namespace, dataset: ImageDataset | None = None) -> Recipe:
    """The recipe as the options change it; a folder's own one needs its images."""
    if args.recipe not in {None, *RECIPES} and dataset is not None:
        raise ValueError(f"there is no recipe {args.recipe!r}: choose one of {', '.join(RECIPES)}.")
    if dataset is None:
        recipe = get_recipe(args.dataset, args.recipe)
    else:
        recipe = RECIPES[args.recipe].fitted_to(dataset) if args.recipe else folder_recipe(dataset)
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
        raise ValueError(
            f"{out} already holds a run: add --resume to go on with it, or choose another --out."
        )
    return out


def _is_finished(out: Path, recipe: Recipe, dataset: ImageDataset) -> bool:
    """Whether the folder holds this run, whole; ValueError where it holds another."""
    if not (out / RECORD).exists():
        return False
    done = RunRecord.read(out / RECORD)
    # A record keeps what it was written with; settings that came later have their defaults.
    same = Recipe.from_dict(done.recipe) == recipe.fitted_to(dataset)
    if not same or done.source != str(dataset.source):
        raise ValueError(
            f"{out} holds a finished run of another recipe, seed or data: choose another --out."
        )
    if not (out / WEIGHTS).exists() and not (out / CHECKPOINT).exists():
        raise ValueError(
            f"{out} holds the record of this run, but neither its weights nor a checkpoint to make "
            "them from: train it again in another --out."
        )
    if finished := (out / WEIGHTS).exists():
        print(f"{out} holds this run, finished: test accuracy {done.test_accuracy:.4f}.")
    return finished


def run_train(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Train by a recipe, and write weights and record."""
    own, code = args.images is not None, commit()
    if own != (args.dataset == FOLDER):
        raise ValueError(
            "a folder of your own images is given as `train folder MY_IMAGES`, a named data set as "
            "`train mnist`."
        )
    if own and args.quick:
        raise ValueError("--quick is for the named data sets: try a folder with --epochs 1.")
    with _processes(args.device) as (rank, processes, device):
        # A named recipe is looked at before any image is fetched; a folder's own follows from them.
        recipe = None if own else _choose_recipe(args)
        out = _find_out(args, recipe.name if recipe else Path(args.images).resolve().name)
        if rank:  # rank 0 fetches the images, or draws them, before the others look on the disk
            distributed.barrier()
        dataset = _load(args, args.dataset)
        if processes > 1 and not rank:
            distributed.barrier()
        recipe = recipe or _choose_recipe(args, dataset)
        if _is_finished(out, recipe, dataset):
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


def _open_weights(args: argparse.Namespace) -> LoadedModel:
    try:
        return training.load_weights(args.weights, device=resolve_device(args.device))
    except ValueError as error:
        if not re.search(r"\b(attention|patch_embed) is '", str(error)):
            raise
        raise ValueError(
            f"{str(error).rstrip('.')}; where a module of your own registers it, name that module "
            "with --import."
        ) from error


def run_eval(args: argparse.Namespace) -> int:
    """Score saved weights on the test images of the data set, or folder, that they know."""
    loaded = _open_weights(args)
    name = loaded.metadata.get("dataset")
    if args.images is None and name in (None, FOLDER):
        raise ValueError(
            f"{args.weights} does not name a data set to test on: add the folder of images, "
            "`eval WEIGHTS MY_IMAGES`."
        )
    dataset = _load(args, str(name), loaded)
    if list(dataset.classes) != loaded.classes:
        raise ValueError(
            f"{args.weights} was trained on other classes than those of {args.images or name}."
        )
    note = dataset.source.note
    if "seen_images" not in loaded.metadata:
        note += ", which these weights may have been trained on: they do not say what they saw"
    try:
        check_unseen(loaded, dataset.test)
    except ValueError:
        if not args.allow_seen:
            raise
        note += ", some of which these weights were trained or chosen on"
    batches = data.Batches(dataset.test, 500, mean=loaded.mean, std=loaded.std)
    scores = training.evaluate(loaded.model, batches)
    print(f"images: {dataset.source}")
    accuracy, loss, count = (scores[name] for name in ("accuracy", "loss", "count"))
    print(f"test accuracy {accuracy:.4f}, loss {loss:.4f} on {count} images{note}")
    return 0


def run_predict(args: argparse.Namespace) -> int:
    """Name pictures; for a model of MNIST's digits, prepared as MNIST's makers did."""
    loaded = _open_weights(args)
    config = loaded.config
    for path in args.pictures:
        note = ""
        if loaded.metadata.get("dataset") == "mnist":
            image, what = data.read_digit(path, to_pair(config.image_size)[0], config.in_channels)
            note = f" ({what})"
        else:
            image = data.read_image(path, config.image_size, config.in_channels)
        logits = training.predict(loaded.model, loaded.normalise(image[None]))
        values, indices = logits.softmax(dim=1)[0].topk(min(3, logits.shape[1]))
        best = zip(indices.tolist(), values.tolist(), strict=True)
        guesses = ", ".join(f"{loaded.classes[index]} {share:.1%}" for index, share in best)
        print(f"{path}: {guesses}{note}")
    return 0


def run_export_web(args: argparse.Namespace) -> int:
    """Write a copy of saved weights for a web page."""
    size = export_web(args.weights, args.file, half=not args.float32)
    print(f"wrote {args.file}: {size / 1e3:.0f} kB")
    return 0


def run_recipes(args: argparse.Namespace) -> int:
    """List the recipes."""
    for recipe in RECIPES.values():
        train, model = recipe.train, recipe.model
        more = ", ".join(filter(None, (recipe.augment, recipe.mix))) or "none"
        print(
            f"{recipe.name} (train {recipe.dataset}): {recipe.note}\n    patch {model.patch_size}, "
            f"width {model.dim}, depth {model.depth}, {model.heads} heads; {train.epochs} epochs "
            f"of {train.optimizer} at {train.lr:g}, batch {train.batch_size}, augmentation {more}"
        )
    return 0
