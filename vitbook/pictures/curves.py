# SPDX-License-Identifier: MIT
"""Curves: of a training run, of any measurement, and of how far probabilities can be believed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from .frames import as_array, legend_below, new_figure
from .look import CYCLE, PALETTE, WIDTH, halo, style, tint


@style()
def plot_history(
    history: Any,
    *,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Loss and accuracy, epoch by epoch, for training and validation.

    Args:
        history: a ``History`` of vitcore.training, or any sequence of rows (dicts) that hold
            "epoch" and some of "train_loss", "val_loss", "train_accuracy", "val_accuracy" (0 to 1).
    """
    rows = [dict(row) for row in history]
    if not rows:
        raise ValueError("history holds no epoch: train for at least one before plotting.")
    panels = [
        (quantity, parts)
        for quantity in ("loss", "accuracy")
        if (parts := [p for p in ("train", "val") if f"{p}_{quantity}" in rows[0]])
    ]
    if not panels:
        raise ValueError(
            f"history rows hold {sorted(rows[0])}, but need train_loss, val_loss, "
            "train_accuracy or val_accuracy."
        )
    epochs = [row.get("epoch", i + 1) for i, row in enumerate(rows)]
    fig = new_figure(title, figsize, (WIDTH, 2.3 * len(panels) + 0.2))
    axes = fig.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    colours = {"train": PALETTE["orange"], "val": PALETTE["blue"]}
    texts = {"train": "training", "val": "validation"}
    for ax, (quantity, parts) in zip(axes, panels, strict=True):
        scale = 100 if quantity == "accuracy" else 1
        for part in parts:
            values = [_number(row.get(f"{part}_{quantity}")) * scale for row in rows]
            ax.plot(epochs, values, marker="o", color=colours[part], label=texts[part])
        ax.set_ylabel("accuracy (%)" if scale == 100 else quantity)
        ax.grid(axis="y")
        ax.set_axisbelow(True)
    axes[0].legend()
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return fig


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


@style()
def plot_lines(
    x: Any,
    lines: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    log: bool | Literal["x", "y"] = False,
    fit: Literal["power"] | int | None = None,
    spread: Literal["band", "points"] = "band",
    reference: Mapping[str, float] | None = None,
    markers: bool | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Curves over one x axis; several seeds give their mean and their spread.

    Args:
        x: (n,) values shared by all lines.
        lines: label -> (n,), or (seeds, n), of which the mean is drawn.
        log: "x", "y", or True for both axes.
        fit: "power" adds y = a x^b as fitted in logarithms and gives b in the legend; a whole
            number adds the polynomial of that degree. With a fit, measured values are points.
        spread: "band" from the least to the greatest seed, or every seed as "points".
        reference: label -> y, drawn as dashed horizontal lines.
        markers: points on the lines; without it, where there are at most 20.
    """
    xs = as_array(x, "x", 1).astype(float)
    if not lines:
        raise ValueError("lines holds no curve, but at least one is needed.")
    if log not in (False, True, "x", "y"):
        raise ValueError(f'log is {log!r}, but must be False, True, "x" or "y".')
    if spread not in ("band", "points"):
        raise ValueError(f'spread is {spread!r}, but must be "band" or "points".')
    fig = new_figure(title, figsize, (WIDTH, 3.2))
    ax = fig.subplots()
    marker = "o" if (markers if markers is not None else len(xs) <= 20) else None
    colours = _cycle(len(lines))
    for colour, (label, values) in zip(colours, lines.items(), strict=True):
        ys = as_array(values, f"lines[{label!r}]", (1, 2)).astype(float)
        if ys.shape[-1] != len(xs):
            raise ValueError(
                f"lines[{label!r}] has shape {ys.shape}, but x has {len(xs)} values: "
                "the last dimension must be as long as x."
            )
        seeds = ys if ys.ndim == 2 else ys[None]
        mean = seeds.mean(0)
        if len(seeds) > 1 and spread == "band":
            ax.fill_between(xs, seeds.min(0), seeds.max(0), color=colour, alpha=0.2, linewidth=0)
        elif len(seeds) > 1:
            for row in seeds:
                ax.plot(xs, row, linestyle="", marker="o", color=colour, alpha=0.4)
        if fit is None:
            ax.plot(xs, mean, color=colour, marker=marker, label=label)
        else:
            ax.plot(xs, mean, color=colour, marker="o", linestyle="", label=label)
            dense, fitted, text = _fit(xs, mean, fit)
            ax.plot(dense, fitted, color=colour, label=text)
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axhline(
            value, color="black", linestyle=("--", ":", "-.")[i % 3], linewidth=1.4, label=label
        )
    if log in (True, "x"):
        ax.set_xscale("log")
        _ticks_at(ax, xs)
    if log in (True, "y"):
        ax.set_yscale("log")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    if len(lines) > 1 or fit is not None or reference:
        legend_below(fig, ax)
    return fig


def _cycle(count: int) -> list[str]:
    return [CYCLE[i % len(CYCLE)] for i in range(count)]


def _ticks_at(ax: Any, xs: np.ndarray) -> None:
    """Label a logarithmic axis at the measured values, where they are few."""
    if len(xs) <= 8:
        ax.set_xticks(xs, [f"{value:g}" for value in xs])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()


def _fit(xs: np.ndarray, ys: np.ndarray, fit: str | int) -> tuple[np.ndarray, np.ndarray, str]:
    good = np.isfinite(ys)
    if fit == "power":
        if (xs <= 0).any() or (ys[good] <= 0).any():
            raise ValueError('fit="power" needs x and y above zero, since it takes logarithms.')
        power, constant = np.polyfit(np.log(xs[good]), np.log(ys[good]), 1)
        dense = np.geomspace(xs.min(), xs.max(), 100)
        return dense, np.exp(constant) * dense**power, f"fit: power {power:.2f}"
    if isinstance(fit, bool) or not isinstance(fit, int) or not 1 <= fit < int(good.sum()):
        raise ValueError(
            f'fit is {fit!r}, but must be "power" or a degree from 1 to less than the '
            f"{int(good.sum())} points."
        )
    coefficients = np.polyfit(xs[good], ys[good], fit)
    dense = np.linspace(xs.min(), xs.max(), 100)
    return dense, np.polyval(coefficients, dense), f"fit: degree {fit}"


@style()
def plot_reliability(
    confidence: Any,
    correct: Any,
    *,
    bins: int = 10,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """How often a model is right against how sure it is, and how many answers are how sure.

    A bar is a range of confidence; its height is the share of right answers among those in it.
    A model whose bars end on the diagonal is right as often as it says.

    Args:
        confidence: (M,), the probability of each answer, in [0, 1].
        correct: (M,), whether it was right.
    """
    sure = as_array(confidence, "confidence", 1).astype(float)
    right = as_array(correct, "correct", 1).astype(float)
    if len(sure) == 0 or len(sure) != len(right):
        raise ValueError(
            f"confidence and correct must be equally long, but have {len(sure)} and {len(right)}."
        )
    if sure.min() < 0 or sure.max() > 1 + 1e-6:
        raise ValueError("confidence must hold probabilities from 0 to 1.")
    if bins < 2:
        raise ValueError(f"bins is {bins}, but must be at least 2.")
    which = np.minimum((sure * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    hits = np.bincount(which, weights=right, minlength=bins)
    shares = np.divide(hits, counts, out=np.full(bins, math.nan), where=counts > 0)
    middles = 100 * (np.arange(bins) + 0.5) / bins
    fig = new_figure(title, figsize, (WIDTH, 4.4))
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    options: dict[str, Any] = {
        "width": 92 / bins,
        "color": tint(PALETTE["blue"], 0.55),
        "edgecolor": PALETTE["blue"],
    }
    upper.bar(middles, 100 * shares, **options)
    upper.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1.4)
    upper.text(43, 57, "as sure as right", ha="right", path_effects=halo())
    upper.set_ylabel("right (%)")
    upper.set_ylim(0, 100)
    lower.bar(middles, 100 * counts / len(sure), **options)
    lower.set_ylabel("answers (%)")
    lower.set_xlabel("confidence (%)")
    lower.set_xlim(0, 100)
    lower.yaxis.set_major_locator(MaxNLocator(3))
    for ax in (upper, lower):
        ax.grid(axis="y")
        ax.set_axisbelow(True)
    fig.align_ylabels()
    return fig
