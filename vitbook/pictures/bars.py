# SPDX-License-Identifier: MIT
"""Bars: values side by side, a ladder of recipes, and shares of a whole."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .frames import as_array, legend_below, new_figure
from .look import CYCLE, PALETTE, WIDTH, halo, style, tint


@style()
def plot_bars(
    values: Mapping[str, Any],
    *,
    xlabel: str,
    lower: float | None = None,
    upper: float | None = None,
    reference: Mapping[str, float] | None = None,
    highlight: str | Sequence[str] = (),
    number_format: str = "{:.1f}",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """One horizontal bar for each label; several seeds give the mean, every seed and the range.

    Args:
        values: label -> a number, or a sequence with one number for each seed.
        lower: where the axis begins. Away from zero a bar's length would mislead, so that points
            are drawn instead of bars.
        reference: label -> x, drawn as dashed vertical lines.
        highlight: labels to draw in another colour.
        number_format: how the mean is written beside its bar.
    """
    if not values:
        raise ValueError("values holds no bar, but at least one is needed.")
    wanted = {highlight} if isinstance(highlight, str) else set(highlight)
    if wanted - set(values):
        raise ValueError(f"highlight names {sorted(wanted - set(values))}, which values lacks.")
    series = {}
    for label, value in values.items():
        seeds = np.atleast_1d(as_array(value, f"values[{label!r}]", (0, 1)).astype(float))
        if len(seeds) == 0:
            raise ValueError(f"values[{label!r}] holds no number, but at least one is needed.")
        series[label] = seeds
    texts = [textwrap.fill(label, 20) for label in series]
    height = sum(0.26 + 0.17 * text.count("\n") + 0.12 for text in texts)
    fig = new_figure(title, figsize, (WIDTH, height + 0.75))
    ax = fig.subplots()
    for row, (label, seeds) in enumerate(series.items()):
        colour = PALETTE["vermillion"] if label in wanted else PALETTE["blue"]
        mean = seeds.mean()
        if lower is None:
            ax.barh(row, mean, color=tint(colour, 0.55), edgecolor=colour, height=0.62)
        else:
            ax.plot(mean, row, marker="D", color=colour, markersize=8)
        if len(seeds) > 1:
            ax.hlines(row, seeds.min(), seeds.max(), color=colour, linewidth=1.6)
            ax.plot(
                seeds,
                np.full(len(seeds), row),
                linestyle="",
                marker="o",
                color="black",
                markersize=4,
                alpha=0.75,
            )
        ax.annotate(
            number_format.format(mean),
            (seeds.max(), row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            path_effects=halo(),
        )
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axvline(
            value, color="black", linestyle=("--", ":", "-.")[i % 3], linewidth=1.4, label=label
        )
    ax.set_yticks(range(len(series)), texts)
    ax.set_ylim(len(series) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    greatest = max(seeds.max() for seeds in series.values())
    start = lower if lower is not None else min(0.0, *(s.min() for s in series.values()))
    # Room on the right for the number beside the longest bar.
    ax.set_xlim(start, upper if upper is not None else greatest + 0.22 * (greatest - start))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    if reference:
        legend_below(fig, ax)
    return fig


@style()
def plot_ladder(
    steps: Mapping[str, float | None],
    *,
    xlabel: str,
    builds_on: Mapping[str, str] | None = None,
    noise: float | Mapping[str, float] = 0.0,
    reference: Mapping[str, float] | None = None,
    missing: str = "not yet run",
    number_format: str = "{:.1f}",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """What each step of a sequence adds: a bar from the value that it builds on to its own.

    Beside each bar stand the value and the change. A step that was not measured has a row with
    ``missing`` in it, and what builds on it is compared with what it builds on itself.

    Args:
        steps: label -> the value reached with it, or None; in order, the first the start.
        builds_on: label -> the earlier label that it builds on, where that is not the one before.
        noise: changes smaller than this are drawn pale, since chance could make them; one number
            for all steps, or label -> number.
        reference: label -> x, drawn as dashed vertical lines.
        number_format: how the value is written.
    """
    known = [float(value) for value in steps.values() if value is not None]
    if not known:
        raise ValueError("steps holds no measured value, but at least one is needed.")
    labels = list(steps)
    below: list[int | None] = [None, *range(len(labels) - 1)]
    for label, base in (builds_on or {}).items():
        if label not in steps or base not in labels[: labels.index(label)]:
            raise ValueError(f"builds_on says {label!r} builds on {base!r}, no earlier step.")
        below[labels.index(label)] = labels.index(base)
    texts = [textwrap.fill(label, 17) for label in labels]
    height = sum(0.3 + 0.17 * text.count("\n") + 0.1 for text in texts)
    fig = new_figure(title, figsize, (WIDTH, height + 0.75))
    ax = fig.subplots()
    marks = [*known, *(reference or {}).values()]
    span = max(marks) - min(marks) or 1.0
    for row, label in enumerate(labels):
        base_row = below[row]
        while base_row is not None and steps[labels[base_row]] is None:
            base_row = below[base_row]
        before = None if base_row is None else steps[labels[base_row]]
        value = steps[label]
        ends = [end for end in (value, before) if end is not None]
        beside: dict[str, Any] = {
            "xy": (max(ends, default=min(marks)), row),
            "xytext": (7, 0),
            "textcoords": "offset points",
            "va": "center",
        }
        if value is None:
            ax.annotate(missing, **beside, color="#6E6E6E")
            continue
        text = number_format.format(value)
        if base_row is None or before is None:
            ax.plot(value, row, marker="D", markersize=8, color=PALETTE["blue"])
        else:
            change = value - before
            text += f" ({change:+.1f})".replace("-", "−")
            kind, colour = ("higher", "blue") if change >= 0 else ("lower", "vermillion")
            face, edge = tint(PALETTE[colour], 0.6), PALETTE[colour]
            if abs(change) < (noise if isinstance(noise, int | float) else noise.get(label, 0.0)):
                below_it = (
                    f"below {noise:g}" if isinstance(noise, int | float) else "inside the spread"
                )
                kind = f"change {below_it}: may be chance"
                face, edge = tint("#777777", 0.35), "#777777"
            drawn = ax.get_legend_handles_labels()[1]
            ax.barh(
                row,
                change,
                left=before,
                height=0.62,
                color=face,
                edgecolor=edge,
                label="" if kind in drawn else kind,
            )
            ax.vlines(before, base_row, row + 0.31, color="#777777", linewidth=1.0, zorder=0.5)
        ax.annotate(text, **beside, path_effects=halo())
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axvline(
            value,
            color="black",
            linestyle=("--", ":", "-.")[i % 3],
            linewidth=1.4,
            label=label,
            zorder=0.6,
        )
    ax.set_yticks(range(len(steps)), texts)
    ax.set_ylim(len(steps) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    # Room on the right for a value and its change, about an inch of the axes' three.
    ax.set_xlim(min(marks) - 0.06 * span, max(marks) + 0.62 * span)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    if ax.get_legend_handles_labels()[1]:
        legend_below(fig, ax)
    return fig


@style()
def plot_shares(
    rows: Mapping[str, Any],
    parts: Sequence[str],
    *,
    xlabel: str,
    number_format: str | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """One horizontal bar for each row, divided into the same parts.

    Args:
        rows: label -> one number for each part, zero or more.
        parts: the names of the parts, in the order in which they stand in the bar.
        number_format: how the whole is written beside its bar; None leaves it out.
    """
    if not rows:
        raise ValueError("rows holds no bar, but at least one is needed.")
    if len(parts) > len(CYCLE):
        raise ValueError(f"there are {len(parts)} parts, but only {len(CYCLE)} colours.")
    values = {
        label: as_array(value, f"rows[{label!r}]", 1).astype(float) for label, value in rows.items()
    }
    for label, value in values.items():
        if len(value) != len(parts) or (value < 0).any():
            raise ValueError(
                f"rows[{label!r}] must hold {len(parts)} numbers of at least 0, one for each part."
            )
    texts = [textwrap.fill(label, 20) for label in values]
    # Bars are as high as the longest label needs.
    height = len(texts) * (0.25 + 0.2 * max(text.count("\n") for text in texts))
    fig = new_figure(title, figsize, (WIDTH, height + 0.75))
    ax = fig.subplots()
    left = np.zeros(len(values))
    for i, (name, colour) in enumerate(zip(parts, CYCLE, strict=False)):
        widths = np.array([value[i] for value in values.values()])
        ax.barh(
            range(len(values)),
            widths,
            left=left,
            height=0.74,
            color=tint(colour, 0.75),
            edgecolor="white",
            linewidth=0.6,
            label=name,
        )
        left += widths
    if number_format is not None:
        for row, whole in enumerate(left):
            ax.annotate(
                number_format.format(whole),
                (whole, row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
    ax.set_yticks(range(len(values)), texts)
    ax.set_ylim(len(values) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    ax.set_xlim(0, left.max() * (1.0 if number_format is None else 1.25))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    legend_below(fig, ax)
    return fig
