# SPDX-License-Identifier: MIT
"""What the tests of pictures share: is every text of a figure whole and alone?"""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from vitbook import pictures


def texts_of(fig: Figure) -> list[tuple[str, Bbox]]:
    """Every visible text with its extent in pixels, as drawn at 100 dpi."""
    fig.set_dpi(100)
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    renderer = canvas.get_renderer()
    # Matplotlib keeps labels for ticks beyond the ends of an axis and does not draw them.
    undrawn = set()
    for ax in fig.axes:
        if not ax.get_visible():
            undrawn |= set(ax.findobj(Text))
        if not ax.axison:
            undrawn |= {*ax.get_xticklabels(which="both"), *ax.get_yticklabels(which="both")}
        for labels, part, limits in (
            (ax.get_xticklabels(which="both"), 0, sorted(ax.get_xlim())),
            (ax.get_yticklabels(which="both"), 1, sorted(ax.get_ylim())),
        ):
            slack = 1e-9 * (limits[1] - limits[0])
            undrawn |= {
                label
                for label in labels
                if not limits[0] - slack <= label.get_position()[part] <= limits[1] + slack
            }
    found = []
    for text in fig.findobj(Text):
        shown = text.get_visible() and text.get_text().strip()
        if shown and text not in undrawn:
            found.append((text.get_text(), text.get_window_extent(renderer)))
    return found


def unreadable(fig: Figure) -> list[str]:
    """One line for every text that leaves the figure or lies on another; none when all is well."""
    texts = texts_of(fig)
    width, height = fig.get_size_inches() * 100
    problems = [
        f"{text!r} leaves the figure"
        for text, box in texts
        if box.x0 < -1 or box.y0 < -1 or box.x1 > width + 1 or box.y1 > height + 1
    ]
    for (first, a), (second, b) in combinations(texts, 2):
        across = min(a.x1, b.x1) - max(a.x0, b.x0)
        along = min(a.y1, b.y1) - max(a.y0, b.y0)
        # Extents hold room above and below the letters, so that neighbours may share some.
        if across > 1 and along > 3:
            problems.append(f"{first!r} lies on {second!r}")
    return problems


def check_readable(fig: Figure) -> None:
    """Within the page's width, in one font size, on opaque white, no text cut off or covered."""
    assert fig.get_figwidth() <= pictures.MAX_WIDTH
    assert {text.get_fontsize() for text in fig.findobj(Text)} == {pictures.FONT_SIZE}
    problems = unreadable(fig)
    assert not problems, "\n".join(problems)
    png = pictures.to_png(fig)
    assert len(png) < 80_000
    picture = Image.open(io.BytesIO(png))
    assert picture.mode == "P"
    assert "transparency" not in picture.info
    corners = np.asarray(picture.convert("RGB"))[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all()
