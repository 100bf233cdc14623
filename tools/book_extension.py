# SPDX-License-Identifier: MIT
"""What the book adds to Sphinx: tables from committed files, and lists out of plain docstrings.

The directives {last-runs}, {results} and {everywhere} make their tables while the site is built,
from the notebooks' metadata and the records of runs/, so they cannot be older than what they tell
of.
"""

from __future__ import annotations

import html
import json
import re
import sys
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # Sphinx puts tools/ there, the modules below live one level up
    sys.path.insert(0, str(ROOT))

from benchmarks import everywhere, leaderboard  # noqa: E402
from tools import book_figures, book_names, notebooks, runs_index  # noqa: E402
from tools.set_repository import read_repository  # noqa: E402


def duration(seconds: float) -> str:
    """Say seconds as a reader would."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def last_runs_rows(paths: list[Path]) -> list[list[str]]:
    """Return one row of Markdown cells for each notebook."""
    rows = []
    for path in paths:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        told: dict[str, Any] = notebook["metadata"].get("vitcore", {})
        title = notebooks.title(notebooks.read(path))
        versions = told.get("versions", {})
        rows.append(
            [
                f"[{title}](/notebooks/{path.name})",
                told.get("executed", "not yet"),
                duration(told["seconds"]) if "seconds" in told else "",
                told.get("hardware", ""),
                told.get("source", ""),
                ", ".join(
                    f"{name} {versions[name]}"
                    for name in ("vitcore", "torch", "python")
                    if name in versions
                ),
            ]
        )
    return rows


def markdown_table(header: list[str], rows: list[list[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


class FromFiles(SphinxDirective):
    """A directive whose Markdown comes from files that the page then depends on."""

    has_content = False

    def parse(self, lines: list[str], files: list[Path]) -> list[nodes.Node]:
        """Render Markdown lines and have the page rebuilt when one of ``files`` changes."""
        for path in files:
            self.env.note_dependency(str(path))
        self.env.note_reread()  # a new file changes the table too
        holder = nodes.container(classes=["wide-table"])
        self.state.nested_parse(StringList(lines, source=self.env.docname), 0, holder)
        return [holder]


class LastRuns(FromFiles):
    """When each notebook last ran, how long it took, on what, with which images."""

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        paths = notebooks.notebook_paths()
        header = ["Chapter", "Last run", "Took", "On", "Images", "Versions"]
        return self.parse(markdown_table(header, last_runs_rows(paths)), paths)


class Results(FromFiles):
    """The leaderboard, from the records of runs/."""

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        address = f"{read_repository()}/blob/main/"
        lines = leaderboard.table(address=address)
        (holder,) = self.parse(lines, runs_index.record_paths())
        holder["classes"].append("results-table")  # type: ignore[index]
        return [holder]


class Everywhere(FromFiles):
    """One model in several ways of running it, from the record of runs/everywhere."""

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        path = ROOT / everywhere.OUT / "record.json"
        return self.parse(everywhere.table(json.loads(path.read_text("utf-8"))), [path])


# What the front page shows: recipe -> what it is, in a reader's words.
HEADLINES = {
    "mnist-fast": "MNIST, in minutes",
    "cifar100-plain": "CIFAR-100, the bare model of most tutorials",
    "cifar100-longer": "the same images, climbed rung by rung",
    "cifar100-cpu": "a larger model and the whole recipe",
}


class Headlines(FromFiles):
    """A few results as bars, in the reader's colours."""

    def run(self) -> list[nodes.Node]:
        """Make one bar for each of ``HEADLINES`` that has records."""
        found = {
            recipe: runs for (_, recipe, _), runs in runs_index.recorded_runs(ladders=True).items()
        }
        lines = []
        for recipe, words in HEADLINES.items():
            records = [record for _, record in found.get(recipe, [])]
            if not records:
                continue
            accuracy = sum(record["test_accuracy"] for record in records) / len(records)
            seconds, _ = runs_index.training_seconds(records)
            seeds = f", mean of {len(records)} seeds" if len(records) > 1 else ""
            threads = records[0]["hardware"]["threads"]
            cores = f"{threads} core{'s' if threads > 1 else ''}"
            # The accuracy on images that were divided anew is not quite the published one.
            split = ", re-split" if records[0]["split"] == "re-split" else ""
            lines.append(
                f'<li><span class="bar" style="width: {100 * accuracy:.1f}%"></span>'
                f"<strong>{100 * accuracy:.1f} %</strong> {html.escape(words)} "
                f"<small>({round(seconds / 60)} min on {cores}{seeds}{split})</small></li>"
            )
        self.parse([], runs_index.record_paths())
        return [nodes.raw("", f'<ul class="headlines">{"".join(lines)}</ul>', format="html")]


class PlantedMistakes(FromFiles):
    """The mistakes that shapes do not show: the chapter that plants each and the check for it."""

    def run(self) -> list[nodes.Node]:
        """Make the table from ``vitbook.checks.BUGS``."""
        from vitbook.checks import BUGS

        rows = [
            [str(bug.chapter), bug.mistake, f"`checks.{bug.check.__name__}`"]
            for bug in sorted(BUGS.values(), key=lambda bug: bug.chapter)
        ]
        lines = markdown_table(["Chapter", "Mistake", "Found by"], rows)
        return self.parse(lines, [ROOT / "vitbook" / "checks" / "bugs.py"])


ENTRY = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): (\S.*)")


def list_parameters(lines: list[str]) -> list[str]:
    """Turn paragraphs of "name: what it is" lines into definition lists, leave the rest.

    In an editor such lines read well as they are; on a page they would flow into one another.
    """
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip():
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    out: list[str] = []
    for paragraph in paragraphs:
        heads = [line for line in paragraph if not line.startswith(" ")]
        if paragraph and heads and all(ENTRY.fullmatch(line) for line in heads):
            for line in paragraph:
                found = ENTRY.fullmatch(line)
                if found:
                    names = ", ".join(f"``{name}``" for name in found.group(1).split(", "))
                    out += [names, f"    {found.group(2)}"]
                else:
                    out.append(f"    {line.strip()}")
        else:
            out += paragraph
        out.append("")
    return out


def on_docstring(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Let autodoc show what `list_parameters` makes of a docstring."""
    lines[:] = list_parameters(lines)
    if what in ("property", "attribute", "data"):
        # Else napoleon takes a first line with a colon for "type: description".
        lines[:0] = ["..", ""]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("last-runs", LastRuns)
    app.add_directive("results", Results)
    app.add_directive("everywhere", Everywhere)
    app.add_directive("headlines", Headlines)
    app.add_directive("planted-mistakes", PlantedMistakes)
    book_figures.setup(app)
    book_names.setup(app)
    # Before napoleon, which turns the Google sections into fields.
    app.connect("autodoc-process-docstring", on_docstring, priority=400)
    return {"version": "1", "parallel_read_safe": True}
