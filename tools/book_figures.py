# SPDX-License-Identifier: MIT
"""Figures of the chapters: a number, a caption, colours that follow the theme; folds and tables.

Notebooks stay plain: a picture there is an image with alternative text (`vitbook.pictures.show`),
and what a caption says is the beginning of that text.
"""

from __future__ import annotations

import base64
import html
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

# A caption takes whole sentences of the alternative text up to this many letters.
CAPTION_LETTERS = 240
PICTURE = re.compile(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]*)"([^>]*)>\s*')
COLOUR = re.compile(r"#([0-9a-fA-F]{6})\b")
# Lightness of black and white in the dark theme, where the page is #121212.
DARK_INK, DARK_PAPER = 0.93, 0.182
# vitbook.pictures.look: text on coloured pixels, which the dark theme does not change either.
UNCHANGED = {"fefefe", "010101"}
# Printed tables get smaller letters on a phone, down to this many in a line; wider ones wrap.
WIDEST_TABLE = 72


class book_figure(nodes.General, nodes.Element):
    """A picture with its caption."""


class book_caption(nodes.Part, nodes.TextElement):
    """The number and the words under a picture."""


def open_figure(writer: Any, node: nodes.Element) -> None:
    """Begin a picture with its caption."""
    writer.body.append(f'<figure class="numbered" id="{node["ids"][0]}">')


def close_figure(writer: Any, node: nodes.Element) -> None:
    """End it."""
    writer.body.append("</figure>\n")


def open_caption(writer: Any, node: nodes.Element) -> None:
    """Begin a caption with the number of its figure, which is a link to it."""
    writer.body.append(f'<figcaption><a class="number" href="#{node["to"]}">{node["number"]}</a> ')


def close_caption(writer: Any, node: nodes.Element) -> None:
    """End it."""
    writer.body.append("</figcaption>")


def split_words(words: str) -> tuple[str, str]:
    """Divide an alternative text into a caption and what only those need who see no picture."""
    sentences = re.split(r"(?<=[.!?])\s+(?=[A-Z])", words)
    count = 1
    while count < len(sentences) and len(" ".join(sentences[: count + 1])) <= CAPTION_LETTERS:
        count += 1
    return " ".join(sentences[:count]), " ".join(sentences[count:])


def read_bundle(bundle: nodes.Element, source: Path) -> tuple[str, str, str] | None:
    """Return the address of an output's picture, its words and its size; none if it shows none.

    The SVG, where there is one, goes before the pixels. ``source`` is the book's folder.
    """
    parts = {part.get("mime_type"): part for part in bundle.children if part.children}
    if "text/html" not in parts:
        return None
    found = PICTURE.fullmatch(parts["text/html"].astext().strip())
    if found is None:
        return None
    address = f"data:image/png;base64,{found.group(1)}"
    if "image/svg+xml" in parts:
        (image,) = parts["image/svg+xml"].findall(nodes.image)
        data = (source / image["uri"].lstrip("/")).read_bytes()
        address = f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"
    return address, html.unescape(found.group(2)), found.group(3)


def make_figure(picture: tuple[str, str, str], chapter: int, count: int) -> book_figure:
    """Return a numbered figure of what `read_bundle` found."""
    address, words, size = picture
    number, name = f"Figure {chapter}.{count}", f"figure-{chapter}-{count}"
    caption, rest = split_words(words)
    alt = html.escape(rest or f"{number}, described by its caption.", quote=True)
    image = nodes.raw("", f'<img src="{address}" alt="{alt}"{size}>', format="html")
    words_node = book_caption(caption, caption, number=number, to=name)
    return book_figure("", image, words_node, ids=[name])


def name_fold(cell: nodes.Element, numbers: list[int], chapter: int) -> None:
    """Say what a folded cell holds where it has no title of its own: the code of which figures."""
    if "Show code cell" not in cell.get("prompt_show", ""):
        return
    words = "Code of this output"
    if len(numbers) == 1:
        words = f"Code of figure {chapter}.{numbers[0]}"
    elif numbers:
        joint = "and" if len(numbers) == 2 else "to"
        words = f"Code of figures {chapter}.{numbers[0]} {joint} {chapter}.{numbers[-1]}"
    cell["prompt_show"] = cell["prompt_hide"] = words


def put_setup_off(doctree: nodes.document) -> None:
    """Let a chapter begin with its first sentence: the setup cell stands before the first code."""
    cells = [
        cell for cell in doctree.findall(nodes.container) if cell.get("nb_element") == "cell_code"
    ]
    setup = next((c for c in cells if c.get("prompt_show", "").startswith("Setup:")), None)
    first = next((cell for cell in cells if "hide_mode" not in cell), None)
    if setup is not None and first is not None:
        setup.parent.remove(setup)
        first.parent.insert(first.parent.index(first), setup)


def table_width(text: str) -> int:
    """Return the letters in the longest line of a printed table; 0 where none is printed.

    A table has two lines or more with a gap of two spaces inside.
    """
    lines = [line.rstrip() for line in text.splitlines() if re.search(r"\S {2,}\S", line)]
    return max(map(len, lines)) if len(lines) > 1 else 0


def mark_tables(cell: nodes.Element) -> None:
    """Give each printed table a class that says how wide it is, in steps of eight letters."""
    for output in cell.findall(nodes.literal_block):
        width = -(-table_width(output.astext()) // 8) * 8
        if "output" in output["classes"] and 40 < width <= WIDEST_TABLE:
            output["classes"].append(f"table-{width}")


def name_figures(app: Sphinx, doctree: nodes.document) -> None:
    """Number the pictures of a chapter, and name its folded cells after them."""
    if app.env.docname.startswith("notebooks/"):
        put_setup_off(doctree)
    found = re.match(r"notebooks/(\d+)_", app.env.docname)
    if found is None:  # no chapter
        return
    chapter, count = int(found.group(1)), 0
    for cell in list(doctree.findall(nodes.container)):
        if cell.get("nb_element") != "cell_code":
            continue
        numbers = []
        for bundle in list(cell.findall(nodes.container)):
            if bundle.get("nb_element") != "mime_bundle":
                continue
            picture = read_bundle(bundle, Path(app.srcdir))
            if picture is not None:
                count += 1
                numbers.append(count)
                bundle.replace_self(make_figure(picture, chapter, count))
        name_fold(cell, numbers, chapter)
        mark_tables(cell)


def to_oklab(colour: str) -> tuple[float, float, float]:
    """Return lightness, green to red, blue to yellow of six hex digits (Ottosson, 2020)."""
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4))
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in (red, green, blue)
    )
    long = (0.4122214708 * red + 0.5363325363 * green + 0.0514459929 * blue) ** (1 / 3)
    middle = (0.2119034982 * red + 0.6806995451 * green + 0.1073969566 * blue) ** (1 / 3)
    short = (0.0883024619 * red + 0.2817188376 * green + 0.6299787005 * blue) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * middle - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * middle + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * middle - 0.8086757660 * short,
    )


def from_oklab(light: float, a: float, b: float) -> str:
    """Return six hex digits; what a screen cannot show is cut."""
    long = (light + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (light - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (light - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short,
    )
    parts = (
        12.92 * part if part <= 0.0031308 else 1.055 * part ** (1 / 2.4) - 0.055
        for part in (min(1.0, max(0.0, part)) for part in linear)
    )
    return "".join(f"{round(255 * part):02x}" for part in parts)


def darken(colour: str) -> str:
    """Return what a colour on white becomes on the dark page: light and dark change places.

    Hues stay. What is far from grey keeps more of its light, so that yellow is still yellow.
    """
    if colour.lower() in UNCHANGED:
        return colour
    light, a, b = to_oklab(colour)
    vivid = min(1.0, (a * a + b * b) ** 0.5 / 0.15)
    return from_oklab(DARK_INK - (DARK_INK - DARK_PAPER) * light + 0.2 * vivid, a, b)


def darken_svg(text: str) -> str:
    """Return an SVG drawn for white paper in the colours of the dark theme; images stay."""
    text = COLOUR.sub(lambda found: f"#{darken(found.group(1))}", text)
    # What names no colour is black.
    return text.replace("<svg ", f'<svg fill="#{darken("000000")}" ', 1)


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.add_node(book_figure, html=(open_figure, close_figure))
    app.add_node(book_caption, html=(open_caption, close_caption))
    # Before Sphinx looks for files of images.
    app.connect("doctree-read", name_figures, priority=400)
