# SPDX-License-Identifier: MIT
"""Sphinx directives for the pages on which a model runs: their script, its places, the mistakes.

```{live-page} try-it        the page's script and styles, and what stands there without them
```{live} NAME               the place that the script fills, found by its name
```{live-mistakes}           the switches for the planted mistakes, from ``vitbook.checks.BUGS``
"""

from __future__ import annotations

import html
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parent.parent

PAGE = """\
<link rel="stylesheet" href="{static}/live.css">
<p class="live-message" id="live-message" hidden>This page was opened as a file, and from files
browsers load no scripts of this kind. Serve the folder instead: run
<code>python -m http.server</code> in it and open <code>http://localhost:8000</code>.</p>
<noscript><p class="live-message">The model on this page runs in JavaScript, which is switched off
here.</p></noscript>
<script>document.getElementById("live-message").hidden = location.protocol !== "file:"</script>
<script type="module">import "{static}/{name}.mjs"</script>
"""

# No styles and no script of a file before the reader comes here: the front page stays light.
FRONT = """\
<div class="live-front" data-live="front"><p><a class="sd-btn sd-btn-primary"
href="book/try_it.html">Try it: follow a digit through the model</a></p></div>
<script type="module">
const host = document.querySelector('[data-live="front"]');
const load = () => import("./_static/live/front.mjs").then(({ front }) => front(host));
const watch = new IntersectionObserver((seen) => {
  if (!seen.some((entry) => entry.isIntersecting)) return;
  watch.disconnect();
  const idle = window.requestIdleCallback ?? setTimeout;
  if (document.readyState === "complete") idle(load);
  else addEventListener("load", () => idle(load));
});
if (location.protocol !== "file:") watch.observe(host);
</script>
"""


class Live(SphinxDirective):
    """What stands behind all three: HTML as it is."""

    optional_arguments = 1

    def html(self) -> str:
        """The HTML of the directive: here, a place for a script to fill."""
        name = html.escape(self.arguments[0])
        return f'<div class="live" data-live="{name}"></div>'

    def run(self) -> list[nodes.Node]:
        """Put the HTML on the page."""
        return [nodes.raw("", self.html(), format="html")]


class LivePage(Live):
    """The script and styles of a live page, and the words for those without them."""

    def html(self) -> str:
        """The page's script, styles and messages."""
        up = "../" * self.env.docname.count("/") or "./"
        return PAGE.format(static=f"{up}_static/live", name=html.escape(self.arguments[0]))


class LiveFront(Live):
    """A digit, its patches, its answer, and the way to the page."""

    def html(self) -> str:
        """The place, with the link in it, and the script that fills it in time."""
        return FRONT


class LiveMistakes(Live):
    """A switch for each of ``BUGS``, with the chapter and the check that finds it."""

    def html(self) -> str:
        """The list of switches, the model without a mistake first."""
        from vitbook.checks import BUGS

        self.env.note_dependency(str(ROOT / "vitbook" / "checks" / "bugs.py"))
        items = ['<li data-bug=""><label><input type="radio" name="mistake" disabled checked> '
                 '<b>no mistake</b></label><span class="live-effects"></span></li>']  # fmt: skip
        for name, bug in sorted(BUGS.items(), key=lambda item: item[1].chapter):
            (path,) = (ROOT / "notebooks").glob(f"{bug.chapter:02}_*.ipynb")
            up = "../" * self.env.docname.count("/")
            link = f'<a href="{up}notebooks/{path.stem}.html">chapter {bug.chapter}</a>'
            items.append(
                f'<li data-bug="{name}"><label><input type="radio" name="mistake" disabled> '
                f"{html.escape(bug.mistake)}</label>"
                f'<span class="live-effects"><span>found by <code>{bug.check.__name__}</code>, '
                f"{link}</span></span></li>"
            )
        return f'<div class="live" data-live="mistakes"><ol>{"".join(items)}</ol></div>'


def setup(app: Sphinx) -> dict[str, object]:
    """Register the directives."""
    app.add_directive("live", Live)
    app.add_directive("live-page", LivePage)
    app.add_directive("live-front", LiveFront)
    app.add_directive("live-mistakes", LiveMistakes)
    return {"version": "1", "parallel_read_safe": True}
