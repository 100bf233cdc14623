# SPDX-License-Identifier: MIT
"""Measure the first visit to pages of a site: python -m tools.measure_site SITE [--against OLD].

Chromium sees each page for the first time through a slow line (1.6 Mbit/s, 150 ms) on a processor
four times slower than this one. Every page is seen in turn from both builds, so that a busy machine
slows both alike; what counts are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import gzip
import http.server
import json
import shutil
import statistics
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

LINE = {"latency": 150, "downloadThroughput": 1.6e6 / 8, "uploadThroughput": 0.75e6 / 8}
SLOWER = 4
PAGES = ("index", "notebooks/01_patches", "notebooks/03_attention", "notebooks/07_cifar100")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PACKED = {".html", ".css", ".js", ".mjs", ".svg", ".json", ".xml"}
# Painted, and the scripts that answer a tap have run; then, whole: fonts and formulas too.
USABLE = """() => {
    const paint = performance.getEntriesByName('first-contentful-paint')[0];
    const told = performance.getEntriesByType('navigation')[0];
    return Math.max(paint ? paint.startTime : Infinity, told.domContentLoadedEventEnd);
}"""
WHOLE = """async () => {
    if (window.MathJax && MathJax.startup && MathJax.startup.promise) await MathJax.startup.promise;
    return performance.now();
}"""


class Visit(NamedTuple):
    """A first visit: bytes over the line, and milliseconds until usable and until whole."""

    size: float
    usable: float
    whole: float


class Packed(http.server.SimpleHTTPRequestHandler):
    """Serves files as a public server does: text compressed."""

    def do_GET(self) -> None:
        """Answer with the file, packed where that pays."""
        path = Path(self.translate_path(self.path))
        if path.suffix not in PACKED or not path.is_file():
            super().do_GET()
            return
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The folder's address on loopback, inside a ``with`` block."""
    handler = partial(Packed, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def visit(browser: Any, address: str, slow: bool = True) -> Visit:
    """See a page for the first time, without scrolling."""
    context = browser.new_context(viewport={"width": 390, "height": 844})
    tab = context.new_page()
    tab.set_default_timeout(120_000)
    told = context.new_cdp_session(tab)
    told.send("Network.enable")
    sizes: list[float] = []
    told.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    if slow:
        told.send("Network.emulateNetworkConditions", {"offline": False, **LINE})
        told.send("Emulation.setCPUThrottlingRate", {"rate": SLOWER})
    tab.goto(address, wait_until="load")
    tab.wait_for_load_state("networkidle")
    whole = tab.evaluate(WHOLE)
    found = Visit(sum(sizes), tab.evaluate(USABLE), whole)
    context.close()
    return found


def visits(browser: Any, sites: Sequence[str], page: str, times: int) -> list[Visit]:
    """Return the medians of visits to one page of each site, taken in turn."""
    seen: list[list[Visit]] = [[] for _ in sites]
    for _ in range(times):
        for site, found in zip(sites, seen, strict=True):
            found.append(visit(browser, f"{site}/{page}.html"))
    return [
        Visit(*(statistics.median(part) for part in zip(*found, strict=True))) for found in seen
    ]


def row(page: str, new: Visit, old: Visit | None) -> str:
    """Return one line of the table."""
    told = f"{new.size / 1e3:7.0f} kB {new.usable / 1e3:7.2f} s {new.whole / 1e3:7.2f} s"
    if old is not None:
        ratios = (f"{mine / theirs:5.2f}" for mine, theirs in zip(new, old, strict=True))
        told += "   of the other's: " + " ".join(ratios)
    return f"{page:26}{told}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table, and with --json write the numbers."""
    parser = argparse.ArgumentParser(prog="python -m tools.measure_site", description=__doc__)
    parser.add_argument("site", type=Path, help="a built site, for example _build/html")
    parser.add_argument("--against", type=Path, help="another build of the same pages")
    parser.add_argument("--page", action="append", help="a page without .html; several times")
    parser.add_argument("--times", type=int, default=3, help="visits to each page (default 3)")
    parser.add_argument("--json", type=Path, help="a file for the numbers")
    chosen = parser.parse_args(arguments)
    from playwright.sync_api import sync_playwright

    folders = [chosen.site, *([chosen.against] if chosen.against else [])]
    for folder in folders:
        if not (folder / "index.html").exists():
            parser.error(f"{folder} holds no index.html: name a built site")
    numbers: dict[str, Any] = {}
    with sync_playwright() as playwright, served(folders[0]) as new, served(folders[-1]) as old:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        print(f"{'page':26}first load   usable     whole")
        for page in chosen.page or PAGES:
            found = visits(browser, [new, old][: len(folders)], page, chosen.times)
            print(row(page, found[0], found[1] if chosen.against else None), flush=True)
            numbers[page] = [told._asdict() for told in found]
        browser.close()
    if chosen.json:
        chosen.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
