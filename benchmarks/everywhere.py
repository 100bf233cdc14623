# SPDX-License-Identifier: MIT
"""One model, the same answer everywhere: torch beside timm, ONNX, torch.export, int8, JavaScript.

python -m benchmarks.everywhere exports two committed models in every format, compares the logits
of test images with torch's, times all ways in turns on one thread, and writes what came out to
runs/everywhere/record.json. Times are processor time, which other work on the machine does not
stretch. A way whose package is missing is named, with what it needs.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from vitbook import records, studies
from vitbook.torchvision import import_torchvision
from vitcore.data import ImageDataset, load_dataset
from vitcore.data.download import checksum
from vitcore.export import LIBRARIES, export, export_web
from vitcore.records import RECORD, commit, hardware, now, versions
from vitcore.runs import WEIGHTS
from vitcore.training import LoadedModel, load_weights

OUT = "runs/everywhere"
LIVE = Path(__file__).resolve().parent.parent / "book" / "_static" / "live"
RUNS = {"mnist-adamw-seed0": "MNIST", "cifar100-cpu-seed0": "CIFAR-100"}
IMAGES, AT_ONCE = 300, 50  # of the test set, and how many at once while logits are compared
BATCH, SINGLES = 20, 5  # a round: one batch, and so many passes of one image
ROUNDS = 11


class CannotRunError(Exception):
    """A way that has no such model, or lacks a package; the message says which."""


class Way(Protocol):
    """A way to run the model on images that it holds."""

    def ask(self, first: int, count: int, times: int = 1) -> tuple[float, Tensor]:
        """Processor seconds of `times` passes over `count` images from `first`, and the logits."""

    def stop(self) -> None:
        """End what the way started."""


@dataclass
class InPython:
    """A function that turns images (B, C, H, W) in [0, 1] into logits (B, K)."""

    run: Callable[[Tensor], Tensor]
    images: Tensor

    @torch.no_grad()
    def ask(self, first: int, count: int, times: int = 1) -> tuple[float, Tensor]:
        """See `Way`."""
        some = self.images[first : first + count]
        started = time.process_time()
        for _ in range(times):
            logits = self.run(some)
        return time.process_time() - started, logits

    def stop(self) -> None:
        """Nothing was started."""


class JavaScript:
    """The pages' forward pass under Node, which stays alive and times itself."""

    def __init__(self, weights: Path, images: Tensor, classes: int) -> None:
        node = shutil.which("node")
        if node is None:
            raise CannotRunError("needs Node, version 18 or newer")
        pixels = weights.with_suffix(".pixels")
        np.ascontiguousarray(images.numpy(), dtype="<f4").tofile(pixels)
        program = str(Path(__file__).with_suffix(".mjs"))
        words = [node, program, (LIVE / "vit.mjs").as_uri(), str(weights), str(pixels)]
        self.classes, pipe = classes, subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)

    def ask(self, first: int, count: int, times: int = 1) -> tuple[float, Tensor]:
        """See `Way`."""
        assert self.process.stdin
        assert self.process.stdout
        print(first, count, times, file=self.process.stdin, flush=True)
        told = json.loads(self.process.stdout.readline())
        return told["seconds"], torch.tensor(told["logits"]).view(count, self.classes)

    def stop(self) -> None:
        """End Node, which waits for the next question."""
        self.process.communicate()


@dataclass(frozen=True)
class Model:
    """Saved weights, the images (B, C, H, W) in [0, 1] to run on, and a folder for the exports."""

    weights: Path
    loaded: LoadedModel
    images: Tensor
    folder: Path


def need(*packages: str) -> None:
    """Raise `CannotRunError` unless the packages are installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise CannotRunError(f"needs {' and '.join(missing)}")


def in_torch(model: Model) -> tuple[Way, int]:
    """The model as `load_weights` gives it."""
    loaded = model.loaded
    way = InPython(lambda images: loaded.model(loaded.normalise(images)), model.images)
    return way, model.weights.stat().st_size


def in_timm(model: Model) -> tuple[Way, int]:
    """timm's class with the same weights, which have the names that it gives them."""
    need("timm")
    loaded, c = model.loaded, model.loaded.config
    if c.patch_embed != "linear" or c.attention != "global":
        raise CannotRunError("has neither this stem nor this attention")
    import_torchvision()  # before timm, which imports it
    from timm.models import VisionTransformer

    other = VisionTransformer(
        img_size=c.image_size, patch_size=c.patch_size, in_chans=c.in_channels,
        num_classes=c.num_classes, embed_dim=c.dim, depth=c.depth, num_heads=c.heads,
        mlp_ratio=c.mlp_ratio, qkv_bias=c.qkv_bias, class_token=c.class_token,
        global_pool="token" if c.pool == "cls" else "avg", fc_norm=False,
    )  # fmt: skip
    other.load_state_dict(loaded.model.state_dict())
    other.eval()
    way = InPython(lambda images: other(loaded.normalise(images)), model.images)
    return way, model.weights.stat().st_size


def in_onnx(model: Model, format: str) -> tuple[Way, int]:
    """ONNX Runtime on one thread; format: onnx or int8."""
    need(*LIBRARIES)
    import onnxruntime

    path = model.folder / f"{format}.onnx"
    size = export(model.weights, path, format)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])

    return InPython(run, model.images), size


def in_torch_export(model: Model) -> tuple[Way, int]:
    """The graph that torch.export keeps."""
    path = model.folder / "graph.pt2"
    size = export(model.weights, path, "torch")
    return InPython(torch.export.load(path).module(), model.images), size


def in_javascript(model: Model, half: bool) -> tuple[Way, int]:
    """The pages' forward pass; half: the file in float16, as the pages have it."""
    path = model.folder / f"page{'-half' * half}.safetensors"
    size = export_web(model.weights, path, half=half)
    return JavaScript(path, model.images, len(model.loaded.classes)), size


# The label of each way, and what makes it, with the bytes of its file.
WAYS: dict[str, tuple[str, Callable[[Model], tuple[Way, int]]]] = {
    "torch": ("torch, `vitcore`", in_torch),
    "timm": ("torch, timm", in_timm),
    "torch.export": ("torch.export", in_torch_export),
    "onnx": ("ONNX Runtime", partial(in_onnx, format="onnx")),
    "int8": ("ONNX Runtime, int8", partial(in_onnx, format="int8")),
    "javascript": ("JavaScript", partial(in_javascript, half=False)),
    "javascript, float16": ("JavaScript, float16 file", partial(in_javascript, half=True)),
}


def judge(found: Tensor, expected: Tensor) -> dict[str, Any]:
    """The largest difference of logits (B, K), and the share of images with the same class."""
    same = (found.argmax(1) == expected.argmax(1)).double().mean().item()
    return {
        "difference": float(f"{(found - expected).abs().max().item():.3g}"),
        "agreement": round(same, 4),
    }


def time_in_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, dict[str, Any]]:
    """Processor seconds an image of every round, alone and in a batch, and ratios to torch's."""
    kinds = {"single": (1, SINGLES), "batch": (BATCH, 1)}  # images at once, how often
    taken: dict[str, dict[str, Any]] = {
        name: {f"{kind}_seconds": [] for kind in kinds} for name in ways
    }
    for turn in range(rounds + 1):  # the first warms up
        for name, way in ways.items():
            for kind, (count, times) in kinds.items():
                seconds, _ = way.ask(0, count, times)
                if turn:
                    taken[name][f"{kind}_seconds"].append(round(seconds / count / times, 7))
    for rows in taken.values():
        for kind in kinds:
            both = [r[f"{kind}_seconds"] for r in (taken["torch"], rows)]
            rows[f"{kind}_ratio"] = studies.compare_rounds(*both)["ratio"]
    return taken


def compare(model: Model, rounds: int) -> dict[str, dict[str, Any]]:
    """What `studies.EverywhereRecord` holds of every way."""
    rows: dict[str, dict[str, Any]] = {}
    ways: dict[str, Way] = {}
    starts = range(0, len(model.images), AT_ONCE)
    try:
        for name, (_, make) in WAYS.items():
            try:
                ways[name], size = make(model)
            except CannotRunError as error:
                rows[name] = {"cannot": str(error)}
                continue
            counts = [min(AT_ONCE, len(model.images) - start) for start in starts]
            parts = [ways[name].ask(*part)[1] for part in zip(starts, counts, strict=True)]
            if name == "torch":
                expected = torch.cat(parts)
            rows[name] = {"bytes": size, **judge(torch.cat(parts), expected)}
        for name, times in time_in_turns(ways, rounds).items():
            rows[name].update(times)
    finally:
        for way in ways.values():
            way.stop()
    return rows


def tools() -> dict[str, str]:
    """The versions of what is there beside `versions()`."""
    found = {p: importlib.metadata.version(p) for p in ("timm", *LIBRARIES) if find_spec(p)}
    if node := shutil.which("node"):
        found["node"] = subprocess.check_output([node, "--version"], text=True).strip().lstrip("v")
    return found


def run(
    out: Path,
    runs: Mapping[str, str] = RUNS,
    load: Callable[[str], ImageDataset] = load_dataset,
    count: int = IMAGES,
    rounds: int = ROUNDS,
) -> dict[str, Any]:
    """Compare all ways of the models of `runs`, write OUT/record.json and return it."""
    code, started, models = commit(), time.perf_counter(), {}
    for name, label in runs.items():
        dataset = load(records.load_record(name)["dataset"])
        records.load_run_weights(name, dataset.test)  # raises where training saw test images
        weights = records.run_file(name, WEIGHTS)
        images = dataset.test.images[:count].float() / 255
        with tempfile.TemporaryDirectory() as folder:
            ways = compare(Model(weights, load_weights(weights), images, Path(folder)), rounds)
        models[name] = {
            "label": label,
            "dataset": dataset.name,
            "source": str(dataset.source),
            "split": dataset.source.split,
            "weights": checksum(weights, "sha256"),
            "ways": ways,
        }
    record = studies.EverywhereRecord.from_dict(
        {
            "kind": studies.EverywhereRecord.KIND,
            "command": "python -m benchmarks.everywhere",
            "commit": code,
            "date": now(),
            "hardware": hardware(torch.device("cpu")),
            "versions": {**versions(), **tools()},
            "images": count,
            "batch": BATCH,
            "rounds": rounds,
            "wall_seconds": round(time.perf_counter() - started, 2),
            "models": models,
        }
    )
    record.write(out / RECORD)
    return record.to_dict()


def table(record: Mapping[str, Any]) -> list[str]:
    """The lines of a Markdown table."""
    header = ["Model", "Runs in", "Largest difference of logits", "Same class", "File",
              "One image", "In a batch"]  # fmt: skip
    rows = [header, ["---"] * len(header)]
    for model in record["models"].values():
        for name, way in model["ways"].items():
            told = [f"no: {way['cannot']}", "", "", "", ""] if "cannot" in way else [
                f"{way['difference']:.1g}",
                f"{100 * way['agreement']:.1f} %",
                f"{way['bytes'] / 1e3:,.0f} kB",
                f"{way['single_ratio']:.2f}",
                f"{way['batch_ratio']:.2f}",
            ]  # fmt: skip
            rows.append([model["label"], WAYS[name][0], *told])
    return ["| " + " | ".join(cells) + " |" for cells in rows]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, compare, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.everywhere", description=__doc__)
    parser.add_argument("--out", default=OUT, metavar="DIR")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        record = run(Path(given.out))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    print("\n".join(table(record)))


if __name__ == "__main__":
    main()
