# SPDX-License-Identifier: MIT
"""What the built site becomes after Sphinx wrote its pages: small, there at once, and findable.

Scripts and styles become one file each, pictures leave the pages and load when they come into view,
mathematics is typeset where there is some, and what no page asks for goes. A page for addresses
that lead nowhere and a map for search engines come on top. Running it twice changes nothing.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from sphinx.application import Sphinx

from tools.book_figures import darken_svg

# In the head, before any style: the first thing that is painted has the reader's colours.
THEME = (
    "<script>(function(){var d=document.documentElement.dataset,m='auto';"
    "try{m=localStorage.getItem('mode')||m}catch(e){}"
    "d.mode=m;d.theme=m!=='auto'?m:"
    "matchMedia('(prefers-color-scheme: dark)').matches?'dark':'light'})()</script>"
)
# Each page asks for these alone; order matters.
STYLES = (
    "basic.css",
    "styles/theme.css",
    "styles/pydata-sphinx-theme.css",
    "pygments.css",
    "styles/sphinx-book-theme.css",
    "togglebutton.css",
    "copybutton.css",
    "mystnb.*.css",
    "sphinx-design.min.css",
    "custom.css",
)
SCRIPTS = (
    "documentation_options.js",
    "doctools.js",
    "sphinx_highlight.js",
    "clipboard.min.js",
    "copybutton.js",
    "scripts/sphinx-book-theme.js",
    "togglebutton.js",
    "scripts/bootstrap.js",
    "scripts/pydata-sphinx-theme.js",
    "book.js",
)
# Kept beside what the pages name: MathJax loads its fonts and, rarely, a package for itself.
KEPT = (
    "mathjax/tex-chtml.js",
    "mathjax/output/chtml/fonts/woff-v2/*",
    "mathjax/input/tex/extensions/*",
    "*.LICENSE.txt",
    "live/*",
    "live/photos/*",
    "searchtools.js",
    "language_data.js",
    "favicon.svg",
    "card.png",
    "file.png",
    "minus.png",
    "plus.png",
)
# Pages without a source of their own.
MADE = {"search", "genindex", "py-modindex", "404"}
SCRIPT = re.compile(r"<script\b[^>]*>.*?</script>\s*", re.DOTALL)
SOURCE = re.compile(r'\bsrc="([^"]+)"')
STYLESHEET = re.compile(r'<link\b[^>]*rel="(?:stylesheet|preload)"[^>]*>\s*')
INLINE_PICTURE = re.compile(r'<img src="data:image/(png|svg\+xml);base64,([^"]+)"([^>]*)>')
# A drawing that a page names by its file, alone or in the front page's choice of two.
DRAWING = re.compile(
    r"<picture\b.*?</picture>|<img\b[^>]*?_images/[\w-]+\.svg[^>]*>", flags=re.DOTALL
)
DRAWING_FILE = re.compile(r"(_(?:images|static)/[\w-]+)\.svg")
SIGNATURE = re.compile(r'<dl>\s*((?:<dd><em class="sig-param">.*?</dd>\s*)+)</dl>', re.DOTALL)
MAP = re.compile(r"/\*# sourceMappingURL.*?\*/|^//# sourceMappingURL=.*$", re.MULTILINE)


def bundle_styles(static: Path) -> str:
    """Write all styles into one file, without the font of icons; return its name and version."""
    parts = []
    for pattern in STYLES:
        for path in sorted(static.glob(pattern)):
            parts.append(MAP.sub("", path.read_text("utf-8")))
    whole = "\n".join(parts).replace('@charset "UTF-8";', "")
    whole = whole.replace('@import "../basic.css";', "")  # it stands in front
    whole = re.sub(r"@font-face\s*\{[^}]*fontawesome[^}]*\}", "", whole)
    # One class for each of two thousand icons; the book draws its fifteen in custom.css.
    whole = re.sub(r"(?:\.fa-[\w-]+(?:::?before)?,?)+\{--fa:[^}]*\}", "", whole)
    return write_bundle(static / "styles" / "site.css", '@charset "UTF-8";\n' + whole)


def bundle_scripts(static: Path) -> str:
    """Write all scripts into one file; return its name and version."""
    hints = "let toggleHintShow = 'Show', toggleHintHide = 'Hide', toggleOpenOnPrint = 'false';\n"
    hints += "var togglebuttonSelector = '.toggle, .admonition.dropdown';\n"
    parts = [hints]
    parts += [MAP.sub("", (static / name).read_text("utf-8")) for name in SCRIPTS]
    parts.insert(2, "DOCUMENTATION_OPTIONS.search_as_you_type = false;")
    return write_bundle(static / "scripts" / "site.js", "\n;".join(parts))


def write_bundle(path: Path, text: str) -> str:
    """Write a file and return its path below _static with a version for caches."""
    path.write_text(text, "utf-8")
    version = hashlib.sha256(text.encode()).hexdigest()[:8]
    return f"{path.parent.name}/{path.name}?v={version}"


def png_size(data: bytes) -> tuple[int, int]:
    """Return width and height from a PNG's header."""
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def svg_size(data: bytes) -> tuple[float, float]:
    """Return width and height from an SVG's view."""
    found = re.search(rb'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"', data)
    assert found, data[:200]
    return float(found.group(1)), float(found.group(2))


def free_pictures(text: str, out: Path, up: str) -> str:
    """Put pictures that a page holds as base64 into files that load when they come into view.

    Drawings become two files, one for each theme, of which a page shows and loads one.
    """

    def replace(found: re.Match[str]) -> str:
        data = base64.b64decode(found.group(2))
        kind = found.group(1).split("+")[0]
        name = f"_images/figure-{hashlib.sha256(data).hexdigest()[:16]}.{kind}"
        (out / name).write_bytes(data)
        wide, high = svg_size(data) if kind == "svg" else png_size(data)
        told = found.group(3)
        width = re.search(r'width="(\d+)"', told)
        if width:  # the room is kept free, so that nothing moves when the picture arrives
            told += f' height="{round(int(width.group(1)) * high / wide)}"'
        return f'<img src="{up}{name}" loading="lazy" decoding="async"{told}>'

    def double(found: re.Match[str]) -> str:
        light = found.group(0)
        if 'class="front-picture"' not in light and "<picture" in light:
            return light
        for name in DRAWING_FILE.findall(light):
            drawn = (out / f"{name}.svg").read_text("utf-8")
            (out / f"{name}-dark.svg").write_text(darken_svg(drawn), "utf-8")
        if "loading=" not in light:
            light = light.replace("<img ", '<img loading="lazy" ')
        dark = DRAWING_FILE.sub(r"\1-dark.svg", light)
        return f'<span class="in-light">{light}</span><span class="in-dark">{dark}</span>'

    return DRAWING.sub(double, INLINE_PICTURE.sub(replace, text))


def lean_page(text: str, up: str, styles: str, scripts: str) -> str:
    """Return a page that asks for one file of styles and one of scripts."""
    searches = "searchtools.js" in text and 'id="search-results"' in text
    formulas = re.search(r'class="[^"]*\bmath\b', text)
    held: list[str] = []

    def keep(found: re.Match[str]) -> str:
        script = found.group(0)
        source = SOURCE.search(script)
        if source is None:
            told = script.split(">", 1)[1]
            dropped = ("localStorage", "toggle", "DOCUMENTATION_OPTIONS")
            if any(word in told for word in dropped):
                return ""
            return script if formulas or "MathJax" not in told else ""
        name = source.group(1)
        if "mathjax" in name:
            return script.replace('defer="defer"', "async") if formulas else ""
        if "_static/" not in name and "searchindex" not in name:
            return script
        if searches and re.search(r"searchtools|language_data|searchindex", name):
            held.append(f'<script defer src="{name}"></script>\n')
        return ""

    head, rest = text.split("</head>", 1)
    head = STYLESHEET.sub(lambda found: "" if "_static" in found.group(0) else found.group(0), head)
    head, rest = SCRIPT.sub(keep, head), SCRIPT.sub(keep, rest)
    head = re.sub(r"<!--.*?-->\s*", "", head, flags=re.DOTALL)
    head = head.replace(
        '<meta name="viewport" content="width=device-width, initial-scale=1.0" />', "", 1
    )
    asked = f'{THEME}\n<link rel="stylesheet" href="{up}_static/{styles}" />\n'
    asked += f'<script defer src="{up}_static/{scripts}"></script>\n'
    head = head.replace('<meta charset="utf-8" />', f'<meta charset="utf-8" />\n{asked}', 1)
    once = sorted(set(held), key=held.index)
    return re.sub(r"\n\s*\n+", "\n", head) + "".join(once) + "</head>" + rest


def name_parts(text: str) -> str:
    """Say what parts of a page are: once in its title, and to those who hear it read."""
    text = re.sub(r"<title>(.+?) &#8212; \1</title>", r"<title>\1</title>", text)
    # A folded cell is called what it shows.
    text = re.sub(r'(<summary\b[^>]*?) aria-label="Toggle hidden content"', r"\1", text)
    # A signature over several lines is no list of definitions.
    text = SIGNATURE.sub(
        lambda found: (
            '<span class="sig-lines">' + re.sub(r"(</?)dd>", r"\1span>", found.group(1)) + "</span>"
        ),
        text,
    )
    text = text.replace('role="doc-biblioentry"', 'role="listitem"')
    text = text.replace(
        '<summary><span class="toctree-toggle"',
        '<summary aria-label="Pages of this part"><span class="toctree-toggle"',
    )
    return text.replace(
        '<div id="pst-primary-sidebar" class',
        '<div id="pst-primary-sidebar" role="region" aria-label="The book" class',
    )


def lean_pages(out: Path, styles: str, scripts: str) -> None:
    """Rewrite every page once."""
    (out / "_images").mkdir(exist_ok=True)
    for path in sorted(out.rglob("*.html")):
        text = path.read_text("utf-8")
        if "</head>" not in text or THEME in text or "_static" in path.parts:
            continue
        up = "../" * (len(path.relative_to(out).parts) - 1)
        text = lean_page(text, up, styles, scripts)
        path.write_text(name_parts(free_pictures(text, out, up)), "utf-8")


def drop_old_pages(out: Path, docs: set[str]) -> None:
    """Remove pages of an earlier build whose sources are gone."""
    for path in out.rglob("*.html"):
        name = path.relative_to(out).with_suffix("").as_posix()
        if name not in docs | MADE and "_static" not in path.parts:
            path.unlink()


def drop_unused(out: Path) -> None:
    """Remove what lies under _static and no page, style or kept script asks for."""
    static = out / "_static"
    told = "\n".join(
        path.read_text("utf-8") for path in out.rglob("*.html") if path.parent != static
    )
    asked = set(re.findall(r"_static/([^\"?#)\s]+)", told))
    style = (static / "styles" / "site.css").read_text("utf-8")
    asked |= set(re.findall(r"url\([\"']?(?:\.\./)*([\w./-]+)", style))
    kept = {path for pattern in KEPT for path in static.rglob(pattern)}
    for path in sorted(static.rglob("*")):
        name = path.relative_to(static).as_posix()
        if path.is_file() and name not in asked and path not in kept:
            path.unlink()
    for path in sorted(static.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    # Pictures of an earlier build.
    for path in (out / "_images").glob("figure-*"):
        if path.name not in told:
            path.unlink()
    # Of the sources a page offers its own, and Sphinx copies them all.
    for path in (out / "_sources").rglob("*"):
        if path.is_file() and path.relative_to(out).as_posix() not in told:
            path.unlink()


LOST = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<title>Page not found</title>
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="robots" content="noindex" />
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 18px/1.6 system-ui, sans-serif; }}
body {{ max-width: 34rem; margin: 18vh auto; padding: 0 1rem; }}
h1 {{ font-size: 1.7rem; }}
</style>
</head>
<body>
<main>
<h1>There is no page at this address</h1>
<p>It may have moved. <a href="{base}">The front page</a> of {title} lists the chapters, and the
<a href="{base}search.html">search</a> finds words in all of them.</p>
</main>
</body>
</html>
"""


def write_lost_page(out: Path, base: str, title: str) -> None:
    """Write 404.html; a server shows it at any depth, so that its links are whole addresses."""
    (out / "404.html").write_text(LOST.format(base=base, title=html.escape(title)), "utf-8")


def write_sitemap(out: Path, base: str, pages: list[str]) -> None:
    """Write the list of pages for search engines."""
    lines = [f"  <url><loc>{base}{page}</loc></url>" for page in pages]
    whole = ['<?xml version="1.0" encoding="UTF-8"?>']
    whole += ['<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">', *lines, "</urlset>"]
    (out / "sitemap.xml").write_text("\n".join(whole) + "\n", "utf-8")


def finish(app: Sphinx, error: Exception | None) -> None:
    """Make the site lean once Sphinx is done with it."""
    if error is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    static = out / "_static"
    styles, scripts = bundle_styles(static), bundle_scripts(static)
    drop_old_pages(out, app.env.found_docs)
    lean_pages(out, styles, scripts)
    drop_unused(out)
    base = app.config.html_baseurl
    assert urlsplit(base).scheme, base
    shutil.copy(static / "favicon.svg", out / "favicon.svg")
    write_lost_page(out, base, app.config.project)
    root = app.config.root_doc
    docs = [root, *sorted(app.env.found_docs - {root})]
    write_sitemap(out, base, ["" if doc == root == "index" else f"{doc}.html" for doc in docs])


def setup(app: Sphinx) -> dict[str, object]:
    """Connect to Sphinx."""
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True}
