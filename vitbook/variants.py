# SPDX-License-Identifier: MIT
"""The book's comparison of variants (chapters 9 and 10), known to vitcore once imported.

Each recipe is the base with one thing changed, on a fifth of CIFAR-100's training images, and with
as many epochs as the arithmetic of the base allows it: a variant that takes more for an image sees
fewer. All runs: `python -m benchmarks.ladder --plan variants`; what they gave is collected by
`python -m benchmarks.variants` and drawn as a table here.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from vitbook.ladders import BUILDS_ON
from vitbook.records import find_record
from vitcore.recipes import RECIPES, Recipe
from vitcore.training import TrainConfig
from vitcore.vit import ViTConfig

__all__ = [
    "GPU_VARIANTS",
    "VARIANTS",
    "VARIANT_CHANGES",
    "VARIANT_LABELS",
    "sizes_table",
    "variants_record",
    "variants_table",
]

_TODAY: dict[str, Any] = {"norm_layer": "rmsnorm", "qkv_bias": False, "layer_scale": 1e-4}
_QK_NORM: dict[str, Any] = {"attention_options": {"qk_norm": "rmsnorm"}}


def _attention(name: str, **options: Any) -> dict[str, Any]:
    return {"attention": name, "attention_options": options}


def _patches(name: str, **options: Any) -> dict[str, Any]:
    return {"patch_embed": name, "patch_embed_options": options}


VARIANT_CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    # Attention.
    "temperature": _attention("locality", mask_diagonal=False),
    "locality": _attention("locality"),
    "hybrid": _attention("hybrid", window=3, local_share=0.5),
    "alternate": _attention("hybrid", window=3, local_share=[1.0, 0.0]),
    "local": _attention("hybrid", window=3, local_share=1.0),
    "enhanced": _attention("locally_enhanced"),
    # Positions.
    "none": {"positions": "none"},
    "sincos": {"positions": "sincos"},
    "relative": {"positions": "relative"},
    "rotary": {"positions": "rotary"},
    "both": {"positions": "learned+rotary"},
    # Tokens, norms and MLPs.
    "class": {"class_token": True, "pool": "cls"},
    "registers": {"registers": 4},
    "rms": {"norm_layer": "rmsnorm"},
    "qknorm": _QK_NORM,
    "nobias": {"qkv_bias": False},
    "scale": {"layer_scale": 1e-4},
    "swiglu": {"mlp_layer": "swiglu", "mlp_ratio": 4 / 3},
    "today": {**_TODAY, **_QK_NORM, "positions": "learned+rotary", "registers": 4},
    # Patches.
    "stem": _patches("conv_stem"),
    "overlapping": _patches("overlapping"),
    "shifted": _patches("shifted"),
    "flexible": _patches("flexible", patch_sizes=[4, 8]),
    "hierarchical": _patches("hierarchical"),
}
"""What each variant changes in the configuration of the base, by its name."""

VARIANT_LABELS = {
    "base": "the base",
    "temperature": "learned temperature",
    "locality": "and diagonal masked",
    "hybrid": "half the heads local",
    "alternate": "layers alternate",
    "local": "all heads local",
    "enhanced": "convolution of values",
    "none": "no positions",
    "sincos": "sines",
    "relative": "relative bias",
    "rotary": "rotary",
    "both": "learned and rotary",
    "class": "class token",
    "registers": "four registers",
    "rms": "RMSNorm",
    "qknorm": "queries, keys normed",
    "nobias": "no bias in q, k, v",
    "scale": "LayerScale",
    "swiglu": "SwiGLU",
    "today": "a ViT of today",
    "stem": "convolutional stem",
    "overlapping": "overlapping patches",
    "shifted": "shifted patches",
    "flexible": "flexible patches",
    "hierarchical": "hierarchical",
}
"""What each variant is called in a table."""


# What takes more arithmetic for an image sees fewer of them: epochs here and at a GPU's size.
_EPOCHS = {
    "class": (20, 49),
    "registers": (19, 47),
    "today": (19, 47),
    "stem": (13, 40),
    "overlapping": (19, 50),
    "shifted": (19, 49),
    "hierarchical": (12, 40),
}


def _variants(
    prefix: str, model: Mapping[str, Any], images: tuple[int, int, int] | None, **train: Any
) -> tuple[str, ...]:
    """Register the base at one size and each of its variants, and give their names."""
    common: dict[str, Any] = {"image_size": 32, "patch_size": 4, "num_classes": 100}
    common |= {"mlp_ratio": 2.0, "class_token": False, "pool": "mean"}
    epochs = train["epochs"]
    base = Recipe(
        name=f"{prefix}-base",
        dataset="cifar100",
        model=ViTConfig(**{**common, **model}),
        train=TrainConfig(warmup_epochs=epochs / 8, min_lr=1e-5, **train),
        augment="cifar",
        augment_options={"flip": True, "padding": 4},
        images=images,
        note="learned positions, global attention, linear patches, the mean of the tokens",
    )
    for name, changes in VARIANT_CHANGES.items():
        recipe = dataclasses.replace(
            base, name=f"{prefix}-{name}", model=dataclasses.replace(base.model, **changes)
        )
        if changes:
            BUILDS_ON[recipe.name] = base.name
            length = _EPOCHS.get(name, (epochs, epochs))[images is None]
            note = f"the base with {', '.join(changes)} changed, at the same arithmetic"
            recipe = dataclasses.replace(
                recipe.with_train(epochs=length, warmup_epochs=length / 8), note=note
            )
        RECIPES[recipe.name] = recipe
    return tuple(f"{prefix}-{name}" for name in VARIANT_CHANGES)


VARIANTS = _variants(
    "cifar100-variants", {"dim": 64, "depth": 4, "heads": 4}, (10_000, 5_000, 10_000),
    epochs=20, lr=2e-3, batch_size=64,
)  # fmt: skip
"""Names of the recipes, the base first."""
GPU_VARIANTS = _variants(
    "cifar100-gpu-variants", {"dim": 192, "depth": 9, "heads": 6}, None,
    epochs=50, lr=1e-3, batch_size=256,
)  # fmt: skip
"""Names of the same at the size of a GPU, on all images."""


# --- what they gave -------------------------------------------------------------------------------


def variants_record(plan: str = "variants") -> dict[str, Any] | None:
    """The record of a plan of variants, or None where there is none; see `VariantsRecord`."""
    return find_record(plan)


def _commands(plan: str) -> str:
    collect = "python -m benchmarks.variants" + (f" --plan {plan}" if plan != "variants" else "")
    return f"python -m benchmarks.ladder --plan {plan}, then {collect}"


def _missing(plan: str, done: int, of: int) -> str:
    return f"{done} of {of} runs are recorded; the others: {_commands(plan)}"


def _chosen(record: Mapping[str, Any], names: Iterable[str] | None) -> dict[str, dict[str, Any]]:
    """The base and the variants named, or all."""
    wanted = record["variants"] if names is None else dict.fromkeys([record["base"], *names])
    return {name: record["variants"][name] for name in wanted}


def variants_table(
    names: Iterable[str] | None = None,
    record: Mapping[str, Any] | None = None,
    plan: str = "variants",
) -> str:
    """Lines for the base and the variants named: what they cost and, where runs are recorded, what
    they reach.

    Parameters, 10^6 operations of an image's forward pass, images a second as multiples of the
    base's in training and in use, epochs at equal arithmetic, mean and standard deviation of the
    validation accuracy in per cent, and the difference to the base with its verdict. record: in
    the place of the one of ``plan``. KeyError for a name that is no variant.
    """
    record = variants_record(plan) if record is None else record
    if record is None:
        return f"not yet run: {_commands(plan)}"
    rows = _chosen(record, names)
    lines = [
        f"{'variant':22}{'parameters':>10}{'MFLOP':>7}{'training':>9}{'use':>6}{'epochs':>7}"
        f"{'validation':>12}  against the base"
    ]
    for name, row in rows.items():
        reached = record["summary"].get(name)
        told = "not yet run"
        if reached:
            spread = f" ± {reached['deviation']:.1f}" if "deviation" in reached else ""
            told = f"{reached['mean']:.1f}{spread}"
        against = ""
        if reached and "verdict" in reached:
            against = f"  {reached['difference']:+.1f}: {reached['verdict']}"
        lines.append(
            f"{VARIANT_LABELS[name]:22}{row['parameters']:>10,}{row['mflop']:>7.1f}"
            f"{row['training']['ratio']:>8.2f}x{row['inference']['ratio']:>5.2f}x"
            f"{row['epochs']:>7}{told:>12}{against}"
        )
    runs = [run for row in rows.values() for run in row["runs"]]
    expected = len(rows) * len(record["seeds"])
    if runs:
        lines.append(f"{record['dataset']} ({runs[0]['split']}), {record['precision']}")
    if len(runs) < expected:
        lines.append(_missing(plan, len(runs), expected))
    return "\n".join(lines)


def sizes_table(
    names: Iterable[str] | None = None,
    record: Mapping[str, Any] | None = None,
    plan: str = "variants",
) -> str:
    """Lines for the base and the variants named: mean accuracy over the seeds, in per cent, on
    validation images of each size; see `variants_table`."""
    record = variants_record(plan) if record is None else record
    if record is None:
        return f"not yet run: {_commands(plan)}"
    rows = _chosen(record, names)
    lines = [f"{'pixels':22}" + "".join(f"{size:>8}" for size in record["sizes"])]
    read = 0
    for name, row in rows.items():
        found = [run["by_size"].values() for run in row["runs"] if "by_size" in run]
        read += len(found)
        cells = [f"{100 * statistics.fmean(size):8.1f}" for size in zip(*found, strict=True)]
        lines.append(f"{VARIANT_LABELS[name]:22}" + ("".join(cells) or "     not yet run"))
    expected = len(rows) * len(record["seeds"])
    return "\n".join([*lines, *([_missing(plan, read, expected)] if read < expected else [])])
