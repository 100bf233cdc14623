# SPDX-License-Identifier: MIT
"""Every page of the built site is opened in headless Chromium, as a reader would see it."""

from __future__ import annotations

import functools
import html
import http.server
import math
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote, urlsplit

import axe_playwright_python
import pytest

from tools import book_figures, book_names, measure_site, notebooks
from tools.book_extension import duration, last_runs_rows, list_parameters, markdown_table
from tools.set_repository import ROOT, read_repository, read_version, site_address, split_address
from tools.setup_cell import wheel_name
from vitbook import pictures
from vitbook.pictures.look import tint

SITE = ROOT / "_build" / "html"
CHAPTERS = notebooks.chapter_paths()
NOTEBOOKS = notebooks.notebook_paths()  # and the pages beside them
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def site() -> Path:
    """The site that `make book` built, or one built now where there is none."""
    if not (SITE / "index.html").exists():
        command = [str(Path(sys.executable).with_name("jupyter-book")), "build", ".", "-W", "-q"]
        subprocess.run([*command, "--keep-going"], cwd=ROOT, check=True)
        subprocess.run([sys.executable, "-m", "tools.build_wheel", str(SITE / "dist")], check=True)
    return SITE


def pages() -> list[str]:
    """The pages that the contents list, and those that the theme adds."""
    import yaml

    contents = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))

    def files(entry: Any) -> Iterator[str]:
        if isinstance(entry, dict):
            if "file" in entry:
                yield entry["file"]
            if "glob" in entry:
                for path in sorted(ROOT.glob(f"{entry['glob']}.ipynb")):
                    yield path.relative_to(ROOT).with_suffix("").as_posix()
            for value in entry.values():
                yield from files(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from files(value)

    return [contents["root"], *files(contents["parts"]), "search", "genindex"]


def chromium() -> str | None:
    """An installed Chromium, or Playwright's own, or none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        found = shutil.which(name)
        if found:
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = chromium()
    if path is None:
        message = "No Chromium: install the system's package, or run playwright install chromium."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves the site and prints nothing."""

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """The site served on loopback."""
    handler = functools.partial(Quiet, directory=str(site))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


# What axe-core finds in the theme's own parts and not in ours, by the rule's name: nothing.
THEIRS: set[str] = set()
AXE = Path(str(axe_playwright_python.__file__)).with_name("axe.min.js").read_text("utf-8")
OTHER = {"light": "dark", "dark": "light"}
LOOK = [(1280, "light"), (390, "dark")]


@pytest.mark.parametrize("page", pages())
@pytest.mark.parametrize(("width", "scheme"), LOOK)
def test_page(page: str, width: int, scheme: Any, address: str, browser: Any) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, service_workers="block"
    )
    context.set_default_timeout(120_000)  # milliseconds; a busy machine is no error
    tab = context.new_page()
    complaints: list[str] = []
    tab.on(
        "console",
        lambda told: (
            complaints.append(f"console: {told.text}")
            if told.type in ("error", "warning")
            else None
        ),
    )
    tab.on("pageerror", lambda error: complaints.append(f"script: {error}"))

    def look(request: Any) -> None:
        where = urlsplit(request.url)
        if where.scheme not in ("data", "blob") and not request.url.startswith(address):
            complaints.append(f"a request to another host: {request.url}")

    tab.on("request", look)
    tab.on(
        "response",
        lambda answer: (
            complaints.append(f"{answer.status}: {answer.url}") if answer.status >= 400 else None
        ),
    )
    tab.goto(f"{address}/{page}.html", wait_until="load", timeout=120_000)
    tab.wait_for_load_state("networkidle")

    blind = tab.evaluate(
        "[...document.images].filter(i => !(i.getAttribute('alt') || '').trim()).map(i => i.src)"
    )
    # Pictures further down load when they come into view; bring them there.
    broken = tab.evaluate(
        """async () => {
            for (const image of document.images) image.loading = 'eager';
            await Promise.all([...document.images].map(i => i.decode().catch(() => {})));
            return [...document.images].filter(i => i.naturalWidth === 0).map(i => i.src);
        }"""
    )
    overflow = tab.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    mode = tab.evaluate("document.documentElement.dataset.theme")
    formulas = tab.evaluate("[...document.querySelectorAll('mjx-merror')].length")
    cut = tab.evaluate(CUT, "cell_output" if width < 1280 else "cell")
    tab.evaluate(AXE)
    tab.evaluate(ONE_OF_EACH)
    barriers = tab.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    # The other theme has other colours and the same parts.
    tab.evaluate("theme => document.documentElement.dataset.theme = theme", OTHER[scheme])
    tab.wait_for_timeout(500)  # buttons take their colours slowly
    barriers += tab.evaluate("axe.run(document, {runOnly: ['color-contrast']})")["violations"]
    context.close()
    assert complaints == []
    assert [source[:100] for source in blind] == [], "images without alternative text"
    assert [source[:100] for source in broken] == [], "images that do not load"
    assert overflow <= 0, f"the page is {overflow} pixels wider than the window"
    assert formulas == 0, "formulas that MathJax cannot read"
    assert mode == scheme
    assert cut == [], "output or code that its box cuts"
    found = [
        f"{barrier['id']}: {barrier['nodes'][0]['html'][:200]}"
        for barrier in barriers
        if barrier["id"] not in THEIRS
    ]
    assert found == [], "what axe-core finds"


# Thousands of words of code have a few colours: one word of each is looked at.
ONE_OF_EACH = """() => {
    const seen = new Set();
    document.querySelectorAll('pre span').forEach(word => {
        if (seen.has(word.className)) word.replaceWith(...word.childNodes);
        seen.add(word.className);
    });
}"""

# Boxes of a class's cells whose text is wider than they are. Folded ones have no width yet.
CUT = """kind => [...document.querySelectorAll(`div.${kind} pre`)]
    .filter(box => box.clientWidth && box.scrollWidth > box.clientWidth + 1)
    .map(box => box.textContent.slice(0, 80))"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_paint_has_the_readers_colours(scheme: Any, address: str, browser: Any) -> None:
    """Before any script of a file has run: here none ever arrives."""
    context = browser.new_context(color_scheme=scheme)
    tab = context.new_page()
    tab.route("**/*.js*", lambda route: route.abort())
    tab.goto(f"{address}/notebooks/{CHAPTERS[0].stem}.html", wait_until="load", timeout=120_000)
    assert tab.evaluate("document.documentElement.dataset.theme") == scheme
    red = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]")
    assert (int(red) < 60) == (scheme == "dark")
    tab.evaluate("localStorage.setItem('mode', 'light')")
    tab.reload(wait_until="load")
    assert tab.evaluate("document.documentElement.dataset.theme") == "light"
    context.close()


def test_the_contents_drawer_closes_after_a_tap(address: str, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 900})
    tab.goto(f"{address}/notebooks/{CHAPTERS[0].stem}.html", wait_until="load", timeout=120_000)
    tab.click("button.secondary-toggle")
    assert tab.locator("dialog[open]").count() == 1
    tab.locator("dialog[open] a.nav-link").last.click()
    assert tab.locator("dialog[open]").count() == 0
    assert "#" in tab.url
    tab.close()


def test_what_scrolls_takes_the_focus(address: str, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 900})
    tab.goto(f"{address}/notebooks/{CHAPTERS[0].stem}.html", wait_until="load", timeout=120_000)
    missed = tab.evaluate(
        """[...document.querySelectorAll('.bd-article pre, .bd-article table')]
            .filter(box => box.scrollWidth > box.clientWidth + 1 && box.tabIndex < 0).length"""
    )
    assert missed == 0
    assert tab.locator("pre[data-reach]").count() > 0
    tab.close()


# Bytes over the line before anybody scrolls, text compressed.
LIMITS = {"index": 350_000, **{f"notebooks/{path.stem}": 600_000 for path in NOTEBOOKS}}


@pytest.mark.parametrize("page", LIMITS)
def test_first_load(page: str, site: Path, browser: Any) -> None:
    with measure_site.served(site) as packed:
        found = measure_site.visit(browser, f"{packed}/{page}.html", slow=False)
    assert 10_000 < found.size <= LIMITS[page]
    assert 0 < found.usable <= found.whole


def test_search_finds(address: str, browser: Any) -> None:
    tab = browser.new_page()
    tab.goto(f"{address}/search.html?q=patchify", wait_until="load", timeout=120_000)
    tab.wait_for_selector("#search-results li", timeout=120_000)
    assert tab.locator("#search-results li").count() > 0
    tab.close()


class Links(HTMLParser):
    """The links and ids of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        if tag == "a" and told.get("href"):
            self.links.append(str(told["href"]))
        for name in ("id", "name"):
            if told.get(name):
                self.ids.add(str(told[name]))


@functools.cache
def parse(path: Path) -> Links:
    links = Links()
    links.feed(path.read_text("utf-8"))
    return links


@pytest.mark.parametrize("page", pages())
def test_links_inside_the_site_lead_somewhere(page: str, site: Path) -> None:
    path = site / f"{page}.html"
    for link in parse(path).links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        assert target.exists(), f"{link} leads nowhere"
        if parts.fragment and target.suffix == ".html":
            assert unquote(parts.fragment) in parse(target).ids, f"{link}: no such place"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_colab_button(path: Path, site: Path) -> None:
    slug = "/".join(split_address(read_repository()))
    expected = (
        f"https://colab.research.google.com/github/{slug}/blob/main/notebooks/{path.stem}.ipynb"
    )
    assert expected in parse(site / "notebooks" / f"{path.stem}.html").links


def test_the_site_serves_the_wheel(site: Path) -> None:
    assert [path.name for path in (site / "dist").iterdir()] == [wheel_name(read_version())]


@pytest.mark.parametrize("page", pages())
def test_a_page_asks_for_what_it_needs(page: str, site: Path) -> None:
    text = (site / f"{page}.html").read_text("utf-8")
    assert "data:image/png" not in text, "pictures belong into files"
    assert "fontawesome" not in text
    assert ("mathjax/tex-chtml.js" in text) == bool(re.search(r'class="[^"]*\bmath\b', text))
    assert ("searchindex.js" in text) == (page == "search")
    # A page that runs a model has styles of its own.
    assert text.count('rel="stylesheet"') == 1 + text.count("_static/live/live.css")
    for picture in re.findall(r"<img [^>]*_images/figure-[^>]*>", text):
        assert 'loading="lazy"' in picture
        assert re.search(r'width="\d+".* height="\d+"', picture), "else the page jumps"


def test_titles(site: Path) -> None:
    titles = {}
    for page in pages():
        (title,) = re.findall(r"<title>(.*?)</title>", (site / f"{page}.html").read_text("utf-8"))
        parts = title.split(" &#8212; ")
        assert len(set(parts)) == len(parts), title
        titles[page] = title
    assert titles["index"] == "Vision Transformers, Step by Step"
    assert len(set(titles.values())) == len(titles)


def test_nothing_lies_around(site: Path) -> None:
    names = [path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file()]
    assert not [name for name in names if name.endswith((".map", ".ttf")) or "fa-solid" in name]
    # Every drawing stands there twice, for both themes; a page asks for one of the two.
    assert sum((site / name).stat().st_size for name in names) < 33e6
    told = "".join(path.read_text("utf-8") for path in site.rglob("*.html"))
    figures = [Path(name).name for name in names if "_images/figure-" in name]
    assert not [name for name in figures if name not in told], "pictures of an earlier build"


def test_the_map_lists_every_page(site: Path) -> None:
    text = (site / "sitemap.xml").read_text("utf-8")
    base = site_address(read_repository())
    listed = re.findall(r"<loc>(.*?)</loc>", text)
    written = {page for page in pages() if page not in ("search", "genindex", "index")}
    assert set(listed) == {base, *(f"{base}{page}.html" for page in written)}


def test_an_address_that_leads_nowhere(site: Path) -> None:
    """The page is shown at any depth, so its links are whole addresses and it needs no file."""
    text = (site / "404.html").read_text("utf-8")
    links = parse(site / "404.html").links
    base = site_address(read_repository())
    assert links == [base, f"{base}search.html"]
    assert not re.search(r"<(?:script|link|img)\b", text)


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_folded_cell_says_what_it_holds(path: Path, site: Path) -> None:
    """Its title, or the figures that it draws; a screen reader hears the same."""
    text = (site / "notebooks" / f"{path.stem}.html").read_text("utf-8")
    summaries = re.findall(r"<summary\b([^>]*)>(.*?)</summary>", text, re.DOTALL)
    folds = [(told, words) for told, words in summaries if "admonition-title" in words]
    titles = [
        title
        for cell in notebooks.read(path).cells
        if (title := notebooks.fold_title(cell)) and "hide-cell" in cell.metadata.get("tags", [])
    ]
    shown = [html.unescape(re.sub(r"<[^>]+>", "", words.split("</p>")[0])) for _, words in folds]
    names = [words.strip() for words in shown]
    assert [name for name in names if not name.startswith("Code of ")] == titles
    assert not [told for told, _ in folds if "aria-label" in told]
    assert "Show code cell" not in text
    figures = set(re.findall(r'id="figure-(\d+-\d+)"', text))
    for name in names:
        for number in re.findall(r"\d+\.\d+", name) if name.startswith("Code of fig") else []:
            assert number.replace(".", "-") in figures, name


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_figures_are_numbered_and_have_captions(path: Path, site: Path) -> None:
    """Every picture of a cell, in order; what the caption says, the picture does not repeat."""
    text = (site / "notebooks" / f"{path.stem}.html").read_text("utf-8")
    figures = re.findall(r'<figure class="numbered" id="([^"]+)">(.*?)</figure>', text, re.DOTALL)
    words = [
        html.unescape(alt)
        for cell in notebooks.read(path).cells
        for output in cell.get("outputs", [])
        for alt in re.findall(
            # Alone: the frames of a slider have captions of their own.
            r'\A\s*<img [^>]*alt="([^"]*)"[^>]*>\s*\Z',
            output.get("data", {}).get("text/html", ""),
        )
    ]
    chapter = int(path.stem[:2])
    assert [name for name, _ in figures] == [f"figure-{chapter}-{i + 1}" for i in range(len(words))]
    for i, ((name, inside), said) in enumerate(zip(figures, words, strict=True)):
        number, caption = re.findall(
            r'<figcaption><a class="number" href="#([^"]+)">Figure [\d.]+</a> (.*?)</figcaption>',
            inside,
            re.DOTALL,
        )[0]
        assert number == name
        alts = {html.unescape(alt) for alt in re.findall(r'alt="([^"]*)"', inside)}
        assert len(alts) == 1
        caption = html.unescape(re.sub(r"<[^>]+>", "", caption))
        (alt,) = alts
        if caption == said:
            assert alt == f"Figure {chapter}.{i + 1}, described by its caption."
        else:
            assert said == f"{caption} {alt}"


def test_a_caption_is_whole_sentences() -> None:
    assert book_figures.split_words("One. Two") == ("One. Two", "")
    long = "A sentence of some length that says one thing. " * 6
    caption, rest = book_figures.split_words(long.strip())
    assert len(caption) <= book_figures.CAPTION_LETTERS < len(caption) + 50
    assert caption.endswith("thing.")
    assert f"{caption} {rest}" == long.strip()
    assert book_figures.split_words("x" * 300) == ("x" * 300, "")


def test_printed_tables_are_known_by_their_gaps() -> None:
    table = "  P       N\n 32      49\na message with one space between its words, of any length"
    assert book_figures.table_width(table) == 11
    assert book_figures.table_width("patch 0:  1.00\nno gap here") == 0


def test_a_printed_table_keeps_its_lines_on_a_phone(address: str, browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 390, "height": 900})
    tab.goto(f"{address}/notebooks/05_vit.html", wait_until="load", timeout=120_000)
    heights = tab.evaluate(
        """[...document.querySelectorAll('[class*=table-] pre')].map(box => {
            const style = getComputedStyle(box), lines = box.textContent.trimEnd().split('\\n');
            const inside = box.clientHeight - parseFloat(style.paddingTop) * 2;
            return inside / parseFloat(style.lineHeight) / lines.length;
        })"""
    )
    assert heights
    assert max(heights) < 1.1
    tab.close()


def test_drawings_in_the_dark() -> None:
    """Light and dark change places, hues stay, text keeps its distance from what it stands on."""
    assert book_figures.darken("ffffff") == "121212"
    assert int(book_figures.darken("000000")[:2], 16) > 220
    assert book_figures.darken("FEFEFE") == "FEFEFE"  # on pixels, which do not change
    for colour in pictures.PALETTE.values():
        light, a, b = book_figures.to_oklab(colour[1:])
        assert book_figures.from_oklab(light, a, b) == colour[1:].lower()
        _, dark_a, dark_b = book_figures.to_oklab(book_figures.darken(colour[1:]))
        assert a * dark_a + b * dark_b >= 0.9 * math.hypot(a, b) * math.hypot(dark_a, dark_b)
    for role, colour in pictures.ROLES.items():
        face = "".join(f"{round(255 * part):02x}" for part in tint(colour, 0.42))
        ratio = contrast(book_figures.darken(face), book_figures.darken("000000"))
        assert ratio > 4.5, role
        if role != "plain":
            # Yellow on white has 1.3.
            assert contrast(book_figures.darken(colour[1:]), "121212") > 2.5, role
    svg = '<svg viewBox="0 0 1 1"><path d="M 0 0"/><path style="fill: #ffffff"/></svg>'
    ink = book_figures.darken("000000")
    assert book_figures.darken_svg(svg) == (
        f'<svg fill="#{ink}" viewBox="0 0 1 1"><path d="M 0 0"/><path style="fill: #121212"/></svg>'
    )


def contrast(first: str, second: str) -> float:
    """WCAG's ratio of two colours, six hex digits each."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dim = sorted((light(first), light(second)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_drawings_follow_the_theme(scheme: Any, address: str, browser: Any) -> None:
    """Of the two files of a drawing one is shown and one is asked for; the paper is the page's."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme=scheme)
    tab = context.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(f"{address}/notebooks/{CHAPTERS[2].stem}.html", wait_until="load", timeout=120_000)
    tab.evaluate("document.querySelector('#figure-3-5').scrollIntoView()")
    tab.wait_for_timeout(1500)
    dark = [url for url in asked if url.endswith("-dark.svg")]
    light = [url for url in asked if url.endswith(".svg") and url not in dark]
    drawn = [url for url in light if "/figure-" in url]
    assert (bool(dark), bool(drawn)) == (scheme == "dark", scheme == "light")
    page = tab.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).join(' ')")
    assert page == {"light": "255 255 255", "dark": "18 18 18"}[scheme]
    context.close()


def test_chapters_are_linked(site: Path) -> None:
    """Words such as "chapter 3" lead to that chapter from wherever they stand in running text."""
    for path in [*sorted((site / "book").glob("*.html")), *sorted(site.glob("notebooks/*.html"))]:
        article = path.read_text("utf-8").split("<article", 1)[1].split("</article>", 1)[0]
        for part in ("pre", "code", "a", "h1", "h2", "h3", "h4", "svg"):
            article = re.sub(rf"<{part}\b.*?</{part}>", "", article, flags=re.DOTALL)
        article = re.sub(r"<[^>]*>", "", article)
        own = path.stem.split("_")[0].lstrip("0")
        bare = set(re.findall(r"\b[Cc]hapter (\d+)\b", article)) - {own}
        assert not bare & {str(int(chapter.stem[:2])) for chapter in CHAPTERS}, path.name
    text = (site / "notebooks" / f"{CHAPTERS[-1].stem}.html").read_text("utf-8")
    assert re.search(r'<a [^>]*href="0\d_\w+\.html">chapter \d</a>', text)


def links_of(page: Path, kind: str) -> list[tuple[str, str]]:
    """(address, words) of a page's links of one class, in order."""
    found = re.findall(
        rf'<a class="[^"]*\b{kind}\b[^"]*" href="([^"]+)"[^>]*>(.*?)</a>', page.read_text("utf-8")
    )
    return [(address, re.sub(r"<[^>]*>", "", words)) for address, words in found]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
def test_a_term_leads_to_the_glossary_once(path: Path, site: Path) -> None:
    links = links_of(site / "notebooks" / f"{path.stem}.html", "term")
    assert len(links) >= 5
    assert len({address for address, _ in links}) == len(links)
    for address, words in links:
        assert address.startswith("../book/glossary.html#term-")
        term = address.split("#term-")[1].lower()
        assert words.lower().rstrip("s").replace(" ", "-")[:5] in term or "query" in term, (
            words,
            term,
        )


def test_names_of_the_code_lead_to_their_api_page(site: Path) -> None:
    links = {
        (words, address.split("#")[1])
        for path in CHAPTERS
        for address, words in links_of(site / "notebooks" / f"{path.stem}.html", "api")
    }
    assert {("vitcore.ViT", "vitcore.vit.ViT"), ("ViTConfig", "vitcore.vit.ViTConfig")} <= links
    for words, anchor in links:
        assert anchor.endswith("." + words.removesuffix("()").split(".")[-1])


def test_what_of_the_code_is_named_plainly_enough() -> None:
    kinds = {
        "vitcore.vit.ViT": "class",
        "vitcore.vit.ViT.embed": "method",
        "vitcore.attention.attention": "function",
        "vitcore.data.load_dataset": "function",
        "vitcore.a.twice_there": "function",
        "vitbook.b.twice_there": "function",
    }
    names = book_names.index_code({key: SimpleNamespace(objtype=kinds[key]) for key in kinds})
    assert names["ViT"] == names["vitcore.ViT"] == names["vit.ViT"] == "vitcore.vit.ViT"
    assert names["ViT.embed"] == names["vitcore.ViT.embed"] == "vitcore.vit.ViT.embed"
    assert names["load_dataset"] == "vitcore.data.load_dataset"
    assert names["vitcore.attention"] == "vitcore.attention.attention"
    assert "attention" not in names, "a word that a chapter may use for its own"
    assert "embed" not in names
    assert "twice_there" not in names
    assert names["vitbook.twice_there"] == "vitbook.b.twice_there"


def test_two_papers_of_one_name_and_year_are_told_apart(site: Path) -> None:
    """By the title that the chapter's sources give."""
    entries = (site / "book" / "bibliography.html").read_text("utf-8")
    titles = ("going deeper with image transformers", "training data-efficient image transformers")
    seen = 0
    for path in CHAPTERS:
        page = (site / "notebooks" / f"{path.stem}.html").read_text("utf-8")
        found = set(re.findall(r'bibliography\.html#(\w+)">Touvron et al\.,? \(?2021', page))
        for anchor in found:
            entry = entries.split(f'id="{anchor}"', 1)[1][:900].lower()
            told = [title for title in titles if title in entry]
            assert [title for title in titles if title in page.lower()] == told, path.name
            seen += 1
    assert seen >= 1


def test_one_model_everywhere_is_a_table(site: Path) -> None:
    text = (site / "book" / "elsewhere.html").read_text("utf-8")
    (table,) = re.findall(r"<table.*?</table>", text, re.DOTALL)
    for way in ("torch, timm", "torch.export", "ONNX Runtime, int8", "JavaScript, float16 file"):
        assert table.count(f"<p>{way}</p>") == 2  # MNIST's model and CIFAR-100's


def test_api_pages_begin_with_the_model_and_show_its_source(site: Path) -> None:
    text = (site / "book" / "api" / "core.html").read_text("utf-8")
    order = ["patches", "embeddings", "attention", "blocks", "vit", "stems"]
    places = [text.index(f'id="module-vitcore.{name}"') for name in order]
    assert places == sorted(places)
    sources = re.findall(rf"{read_repository()}/blob/main/(vitcore/\w+\.py)#L(\d+)-L(\d+)", text)
    assert {path for path, _, _ in sources} >= {f"vitcore/{name}.py" for name in order}
    path, first, last = next(told for told in sources if told[0] == "vitcore/vit.py")
    lines = (ROOT / path).read_text("utf-8").splitlines()
    assert re.match(r"@|class |def ", lines[int(first) - 1].strip())
    assert int(first) < int(last) <= len(lines)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_begins_with_its_first_sentence(path: Path, site: Path) -> None:
    """The cell that installs on Colab stands before the code that needs it."""
    text = (site / "notebooks" / f"{path.stem}.html").read_text("utf-8")
    article = text.split("<article", 1)[1]
    assert article.index("<p>") < article.index("Setup: on Colab")
    assert article.count('<p class="collapsed admonition-title">Setup: on Colab') == 1


def test_search_on_a_file_asks_for_no_page(site: Path, browser: Any) -> None:
    """Titles alone are listed: no page is fetched for a summary, which would show folded parts."""
    tab = browser.new_page()
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(urlsplit(request.url).path))
    tab.goto(f"{(site / 'search.html').as_uri()}?q=patchify", wait_until="load", timeout=120_000)
    tab.wait_for_selector("#search-results li", timeout=120_000)
    assert tab.locator("#search-results li p.context").count() == 0
    pages_asked = [path for path in asked if path.endswith(".html")]
    assert [Path(path).name for path in pages_asked] == ["search.html"]
    sizes = [Path(unquote(path)).stat().st_size for path in asked if Path(unquote(path)).exists()]
    assert sum(sizes) < 1e6
    tab.close()


def test_a_print_from_the_dark_is_dark_on_white(address: str, browser: Any) -> None:
    context = browser.new_context(color_scheme="dark")
    tab = context.new_page()
    tab.goto(f"{address}/notebooks/{CHAPTERS[0].stem}.html", wait_until="load", timeout=120_000)
    theme = "document.documentElement.dataset.theme"
    folded = "document.querySelectorAll('details[open]').length"
    assert (tab.evaluate(theme), tab.evaluate(folded)) == ("dark", 0)
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert (tab.evaluate(theme), tab.evaluate(folded)) == ("light", 0)
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(theme) == "dark"
    context.close()


def test_progress_through_a_chapter_is_seen(address: str, browser: Any) -> None:
    """A bar that grows with the way one has come; none for those who want nothing to move."""
    page = f"{address}/notebooks/{CHAPTERS[4].stem}.html"
    bar = "getComputedStyle(document.body, '::after')"
    for motion in ("no-preference", "reduce"):
        context = browser.new_context(reduced_motion=motion)
        tab = context.new_page()
        tab.goto(page, wait_until="load", timeout=120_000)
        shown = tab.evaluate(f"{bar}.display")
        if motion == "no-preference":
            widths = []
            for share in (0, 0.5, 1):
                tab.evaluate(f"scrollTo(0, {share} * document.documentElement.scrollHeight)")
                tab.wait_for_timeout(600)
                widths.append(float(tab.evaluate(f"{bar}.transform").split("(")[1].split(",")[0]))
            assert widths == sorted(widths)
            assert (widths[0], widths[-1]) == pytest.approx((0, 1), abs=0.05)
        assert (shown == "none") == (motion == "reduce")
        context.close()


def test_commands_for_powershell_can_be_copied(site: Path) -> None:
    text = (site / "book" / "setup.html").read_text("utf-8")
    (block,) = re.findall(r"highlight-powershell.*?<pre>(.*?)</pre>", text, re.DOTALL)
    lines = html.unescape(re.sub(r"<[^>]+>", "", block)).splitlines()
    assert lines[0].startswith("git clone")
    assert not [line for line in lines if line.startswith(">")]


def test_headings_of_two_levels_differ(address: str, browser: Any) -> None:
    for width in (1280, 390):
        tab = browser.new_page(viewport={"width": width, "height": 900})
        tab.goto(f"{address}/notebooks/{CHAPTERS[0].stem}.html", wait_until="load", timeout=120_000)
        sizes = [
            tab.evaluate(
                f"parseFloat(getComputedStyle(document.querySelector('.bd-article {h}')).fontSize)"
            )
            for h in ("h1", "h2", "h3")
        ]
        assert sizes[0] > 1.15 * sizes[1]
        assert sizes[1] > 1.15 * sizes[2], sizes
        tab.close()


def test_headlines_say_how_the_images_were_divided(site: Path) -> None:
    page = (site / "index.html").read_text("utf-8")
    headlines = re.findall(r'<span class="bar".*?</li>', page, re.DOTALL)
    assert len(headlines) >= 4
    for line in headlines:
        assert ("re-split" in line) == ("MNIST" not in line), line


def test_publications_are_linked(site: Path) -> None:
    """A name and a year in running text lead to the bibliography, at that entry."""
    links = [
        link for path in CHAPTERS for link in parse(site / f"notebooks/{path.stem}.html").links
    ]
    assert len({link for link in links if "bibliography.html#" in link}) >= 10
    blocks = (site / "notebooks" / "04_blocks.html").read_text("utf-8")
    led = [
        re.findall(rf'href="([^"]*)">He et al., {year}</a>', blocks) for year in ("2016a", "2016b")
    ]
    assert [len(links) for links in led] == [1, 1]
    assert led[0] != led[1]
    ids = parse(site / "book" / "bibliography.html").ids
    assert {link.split("#")[1] for link in links if "bibliography.html#" in link} <= ids


def test_front_page_introduces_itself_elsewhere(site: Path) -> None:
    text = (site / "index.html").read_text("utf-8")
    base = site_address(read_repository())
    assert f'property="og:url" content="{base}index.html"' in text
    assert 'name="description"' in text
    assert f'property="og:image" content="{base}_static/card.png"' in text
    assert (site / "_static" / "card.png").exists()
    assert "favicon.svg" in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_last_runs_are_those_of_the_notebooks(path: Path, site: Path) -> None:
    told = notebooks.read(path).metadata.get("vitcore", {})
    text = (site / "book" / "last_runs.html").read_text("utf-8")
    assert told["executed"] in text
    assert duration(told["seconds"]) in text


def test_parts_of_the_extension(tmp_path: Path) -> None:
    assert duration(59.6) == "1 min 0 s"
    assert duration(7.2) == "7 s"
    assert markdown_table(["a"], [["x|y"]])[-1] == r"| x\|y |"
    lines = ["What it does.", "", "lr: the rate,", "    in words", "a, b: two", "", "Note: not one"]
    assert list_parameters(lines) == [
        "What it does.",
        "",
        "``lr``",
        "    the rate,",
        "    in words",
        "``a``, ``b``",
        "    two",
        "",
        "Note: not one",
        "",
    ]
    assert last_runs_rows([]) == []
