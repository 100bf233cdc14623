# SPDX-License-Identifier: MIT
"""What each command of `python -m vitcore` does with its arguments; see __main__.py."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


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


def run_train(args: argparse.Namespace, arguments: Sequence[str]) -> int:
    with _processes(args.device) as (rank, processes, device):
        return _train_here(args, arguments, rank, processes, device)


def _train_here(
    args: argparse.Namespace, arguments: Sequence[str], rank: int, processes: int, place: str
) -> int:
    from .recipes import Recipe, get_recipe
    from .records import RECORD, RunRecord, commit, recorded_command
    from .runs import WEIGHTS, train_recipe
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


def run_eval(args: argparse.Namespace) -> int:
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


def run_predict(args: argparse.Namespace) -> int:
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


def run_recipes() -> int:
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
