# SPDX-License-Identifier: MIT
"""From a figure to the page: as PNG, as SVG, as HTML with alternative text, into a notebook."""

from __future__ import annotations

import base64
import html
import io
import re
import sys

import matplotlib
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from .look import DPI, style

# CSS pixels to an inch when a page has room: letters come out the size of the page's text.
CSS_PIXELS_PER_INCH = 110
# A longer SVG is mostly photographs or thousands of points, for which pixels are the smaller file.
SVG_LIMIT = 120_000


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook when it is the value of a cell."""

    alt: str = ""

    def _repr_html_(self) -> str:
        return to_html(self, self.alt or _title_of(self) or "figure")


def _title_of(fig: Figure) -> str:
    title = fig.get_suptitle() if hasattr(fig, "get_suptitle") else ""
    return " ".join(str(title).split())


def to_png(fig: Figure, *, dpi: int = DPI, colours: int = 256) -> bytes:
    """The figure as PNG bytes: opaque, at most 256 colours (a third of the size), no dates.

    The same figure gives the same bytes with the same versions of matplotlib and Pillow.
    """
    from PIL import Image

    buffer = io.BytesIO()
    with style():
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(colors=colours, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()


def to_svg(fig: Figure) -> str:
    """The figure as SVG: letters as paths, so that it looks the same without its font.

    Pixels of images stay as they are, each once. Coordinates are kept to 1/100 point.
    """
    for image in fig.findobj(AxesImage):
        image.set_interpolation("none")  # type: ignore[attr-defined]
    for mesh in fig.findobj(QuadMesh):  # the colours of a colour bar: 256 paths, or one image
        mesh.set_rasterized(True)
    buffer = io.StringIO()
    with style(), matplotlib.rc_context({"image.composite_image": False}):
        fig.savefig(
            buffer, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white"
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(
        r' d="[^"]*"|translate\([^)]*\)| (?:x|y)="[^"]*"',
        lambda part: re.sub(r"-?\d+\.\d{3,}", _shorter, part.group(0)),
        text,
    )
    return re.sub(r"\s*\n\s*", " ", text).replace("> <", "><").strip()


def _shorter(number: re.Match[str]) -> str:
    return f"{float(number.group(0)):.2f}".rstrip("0").rstrip(".")


def to_html(fig: Figure, alt: str) -> str:
    """An ``<img>`` element with the figure inside it and ``alt`` as its alternative text."""
    width = round(fig.get_figwidth() * CSS_PIXELS_PER_INCH)
    data = base64.b64encode(to_png(fig)).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt, quote=True)}" '
        f'width="{width}" style="max-width: 100%; height: auto; background: white;">'
    )


def show(fig: Figure, alt: str) -> None:
    """Show a figure in a notebook, with alternative text for readers who cannot see it.

    The output is an ``<img>`` element (text/html), which keeps its text on the site, in Colab and
    in the .ipynb file; where only plain text is shown, the alternative text stands alone. The SVG
    that comes with it is for the site, which gives it the colours of the reader's theme.
    The figure is closed. Outside a notebook nothing happens.

    Args:
        fig: the figure.
        alt: one or two sentences that say what the picture shows.
    """
    if not isinstance(fig, Figure):
        raise TypeError(
            f"show takes a matplotlib Figure, but got {type(fig).__name__}: "
            "pass what a function of vitbook.pictures returned."
        )
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(
            "show needs alt, the alternative text: one sentence that says what the picture shows."
        )
    alt = " ".join(alt.split())
    if in_notebook():
        from IPython.display import display

        data = {"text/html": to_html(fig, alt), "text/plain": alt}
        svg = to_svg(fig)
        if len(svg) <= SVG_LIMIT:
            data["image/svg+xml"] = svg
        display(data, raw=True)
    if "matplotlib.pyplot" in sys.modules:
        # A figure that the reader made with pyplot would be shown a second time at the cell's end.
        sys.modules["matplotlib.pyplot"].close(fig)


def in_notebook() -> bool:
    """Say whether this runs in a notebook's kernel."""
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return False
    shell = ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None
