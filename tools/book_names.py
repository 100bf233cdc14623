# SPDX-License-Identifier: MIT
"""Names that lead somewhere: chapters, publications, terms, parts of the code, lines of its files.

Notebooks name them in plain words; the links are made while the site is built.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from tools import notebooks
from tools.set_repository import read_repository

ROOT = Path(__file__).resolve().parent.parent
# "chapter 3", or "Touvron et al., 2021", "Hassani et al. (2021)" and "He et al., 2016b".
NAMED = re.compile(
    r"\b[Cc]hapter (?P<chapter>\d+)\b"
    r"|(?P<author>[A-Za-z][\w'-]+)(?: et al\.| and [A-Z][\w'-]+)?,? \(?"
    r"(?P<year>(?:19|20)\d\d)(?P<letter>[a-c]?)\b"
)
# Where words stay as they are.
KEPT = (nodes.reference, nodes.title, nodes.literal, nodes.literal_block, nodes.raw)
# Terms that are everyday words as well.
COMMON = {"key", "value"}
# Ahead of a name that a chapter shortens.
PACKAGES = ("vitcore.", "vitbook.")
SHOWN = ("class", "function", "method", "data", "property", "attribute")


def stands_in(node: Any, kinds: tuple[type, ...]) -> bool:
    """Say whether a node, or one around it, is of a kind."""
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def link_words(text: nodes.Text, found: list[tuple[int, int, str]], kind: str = "") -> None:
    """Make links of parts of a text: (start, end, address) in order."""
    words, pieces, end = text.astext(), [], 0
    for start, stop, address in found:
        link = nodes.reference("", words[start:stop], internal=True, refuri=address)
        if kind:
            link["classes"].append(kind)
        pieces += [nodes.Text(words[end:start]), link]
        end = stop
    if pieces:
        text.parent.replace(text, [*pieces, nodes.Text(words[end:])])


def letters(text: str) -> str:
    """Return the letters of a text alone, to compare titles by."""
    return re.sub(r"[^a-z]", "", text.lower())


class LinkNames(SphinxPostTransform):
    """Make the name of a chapter that exists, or of a publication, a link wherever it stands."""

    default_priority = 400

    def run(self, **options: Any) -> None:
        """Replace the words in running text; headings, code and links stay as they are."""
        for text in list(self.document.findall(nodes.Text)):
            if stands_in(text.parent, KEPT):
                continue
            places = [
                (found.start(), found.end(), address)
                for found in NAMED.finditer(text.astext())
                if (address := self.place(found)) is not None
            ]
            link_words(text, places)

    def place(self, found: re.Match[str]) -> str | None:
        """Return the address that a name leads to, or none."""
        if found["chapter"]:
            number = f"{int(found['chapter']):02}_"
            documents = [f"notebooks/{path.stem}" for path in notebooks.notebook_paths()]
            there = [name for name in documents if name.split("/")[1].startswith(number)]
            places = [(name, "") for name in there if name != self.env.docname]
        else:
            places = self.publications(found["author"], found["year"])
            if found["letter"]:  # of one author's publications in a year, in the entries' order
                places = places["abc".index(found["letter"]) :][:1]
        if len(places) != 1 or places[0][0] == self.env.docname:
            return None
        return self.app.builder.get_relative_uri(self.env.docname, places[0][0]) + places[0][1]

    def publications(self, author: str, year: str) -> list[tuple[str, str]]:
        """Return the bibliography's entries; of several, those whose title this page tells."""
        told = [
            entry
            for entry in self.env.get_domain("cite").citations  # type: ignore[attr-defined]
            if entry.entry.fields.get("year") == year
            and " ".join(entry.entry.persons["author"][0].last_names) == author
        ]
        if len(told) > 1:
            page = letters(self.document.astext())
            told = [entry for entry in told if letters(entry.entry.fields["title"]) in page]
        return [(entry.bibliography_key.docname, f"#{entry.citation_id}") for entry in told]


def term_words(term: str) -> list[str]:
    """Return the words by which a chapter may name an entry of the glossary.

    An entry such as "head (of attention)" shares its word with another and has none.
    """
    words = [] if "(" in term else [part.strip() for part in term.split(",")]
    return [word for word in words if word not in COMMON]


class LinkTerms(SphinxPostTransform):
    """Make the first use of a term in a chapter a link to the glossary."""

    default_priority = 401

    def run(self, **options: Any) -> None:
        """Go through the paragraphs and lists of a chapter, from its beginning."""
        if not self.env.docname.startswith("notebooks/"):
            return
        places = {
            word.lower(): place
            for (kind, term), place in self.env.get_domain("std").objects.items()  # type: ignore[attr-defined]
            if kind == "term"
            for word in term_words(term)
        }
        if not places:
            return
        longest = sorted(map(re.escape, places), key=len, reverse=True)
        named = re.compile(rf"\b({'|'.join(longest)})(?:s|es)?\b", re.IGNORECASE)
        done: set[str] = set()
        for text in list(self.document.findall(nodes.Text)):
            if stands_in(text.parent, KEPT) or not stands_in(text.parent, (nodes.paragraph,)):
                continue
            found = []
            for match in named.finditer(text.astext()):
                document, anchor = places[match.group(1).lower()]
                if anchor not in done:
                    done.add(anchor)
                    uri = self.app.builder.get_relative_uri(self.env.docname, document)
                    found.append((match.start(), match.end(), f"{uri}#{anchor}"))
            link_words(text, found, "term")


def index_code(objects: dict[str, Any]) -> dict[str, str]:
    """Map every ending of a documented name that says enough to the whole name, where one has it.

    A single word says enough if it is a class, or a function of several words: `attention` may be
    a variable of the chapter.
    """
    endings: dict[str, set[str]] = {}
    for whole, told in objects.items():
        if told.objtype not in SHOWN:
            continue
        parts = whole.split(".")
        for i in range(len(parts)):
            endings.setdefault(".".join(parts[i:]), set()).add(whole)
        # What a package hands on: vitcore.ViT is vitcore.vit.ViT.
        member = 2 if told.objtype in ("method", "property", "attribute") else 1
        endings.setdefault(".".join([parts[0], *parts[-member:]]), set()).add(whole)
    return {
        ending: next(iter(wholes))
        for ending, wholes in endings.items()
        if len(wholes) == 1
        and (
            "." in ending
            or objects[next(iter(wholes))].objtype == "class"
            or (objects[next(iter(wholes))].objtype == "function" and "_" in ending.strip("_"))
        )
    }


class LinkCode(SphinxPostTransform):
    """Make a name of the module in a code span of running text a link to its API page."""

    default_priority = 402

    def run(self, **options: Any) -> None:
        """Wrap the spans that name something documented."""
        if self.env.docname.startswith("book/api/"):
            return
        objects = self.env.get_domain("py").objects  # type: ignore[attr-defined]
        names = index_code(objects)
        kept = (nodes.reference, nodes.title, nodes.raw)
        for span in list(self.document.findall(nodes.literal)):
            whole = names.get(span.astext().removesuffix("()"))
            if whole is None or stands_in(span.parent, kept):
                continue
            told = objects[whole]
            uri = self.app.builder.get_relative_uri(self.env.docname, told.docname)
            link = nodes.reference("", "", internal=True, refuri=f"{uri}#{told.node_id}")
            link["classes"].append("api")
            span.replace_self(link)
            link += span


@functools.cache
def find_lines(module: str, name: str) -> tuple[str, int, int] | None:
    """Return the file below the book's folder, first and last line of a name, or none."""
    found: Any = sys.modules.get(module) or importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    found = inspect.unwrap(getattr(found, "fget", None) or found) if found is not None else None
    try:
        path = Path(str(inspect.getsourcefile(found))).resolve().relative_to(ROOT)
        lines, first = inspect.getsourcelines(found)
    except (TypeError, OSError, ValueError):
        return None
    return path.as_posix(), first, first + len(lines) - 1


def source_address(domain: str, told: dict[str, str]) -> str | None:
    """Return where the repository's site shows the source of a name, for sphinx.ext.linkcode."""
    if domain != "py" or not told.get("module", "").startswith(PACKAGES):
        return None
    found = find_lines(told["module"], told["fullname"])
    if found is None:
        return None
    path, first, last = found
    return f"{read_repository()}/blob/main/{path}#L{first}-L{last}"


def setup(app: Sphinx) -> None:
    """Connect to Sphinx."""
    app.add_post_transform(LinkNames)
    app.add_post_transform(LinkTerms)
    app.add_post_transform(LinkCode)
    app.setup_extension("sphinx.ext.linkcode")
    app.config.linkcode_resolve = source_address
