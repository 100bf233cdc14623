# SPDX-License-Identifier: MIT
"""The page "Train it" in headless Chromium: buttons, switches, pictures, and a file to keep."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live_helpers import node
from test_site import AXE, OTHER, address, browser, site  # noqa: F401  (fixtures)

from tools.digit_sample import OUT
from vitcore.training import load_weights

STEP = "Number(document.querySelector('[data-live=train]').dataset.step)"
STATE = "document.querySelector('[data-live=train]').dataset.state"
ACCURACY = "parseFloat(document.querySelector('.live-figures b').textContent)"


class Page:
    """The page, with what a reader does on it."""

    def __init__(self, tab: Any, base: str) -> None:
        self.tab = tab
        self.complaints: list[str] = []
        self.asked: list[str] = []
        tab.set_default_timeout(120_000)  # milliseconds; a busy machine is no error
        tab.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        tab.on("request", lambda request: self.asked.append(request.url))
        tab.on("console", self.hear)
        tab.goto(f"{base}/book/train_it.html", wait_until="load")
        self.reach(f"{STATE} === 'new'")

    def hear(self, told: Any) -> None:
        if told.type in ("error", "warning"):
            self.complaints.append(told.text)

    def reach(self, what: str) -> None:
        self.tab.wait_for_function(what)

    def press(self, words: str) -> None:
        self.tab.get_by_role("button", name=words, exact=True).click()

    def choose(self, words: str, value: str) -> None:
        self.tab.get_by_label(words, exact=True).select_option(value)

    def text(self, name: str) -> str:
        return str(self.tab.locator(f"[data-live={name}]").inner_text())


@pytest.fixture(scope="module")
def page(address: str, browser: Any) -> Iterator[Page]:  # noqa: F811
    tab = browser.new_page(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    page = Page(tab, address)
    yield page
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith((address, "data:", "blob:"))] == []
    tab.close()


def test_training_starts_pauses_steps_and_resets(page: Page, tmp_path: Path) -> None:
    assert not [url for url in page.asked if "digits.png" in url], "fetched before the start"
    for words, value in {"Width": "16", "Blocks": "1", "Heads": "2", "Epochs": "3"}.items():
        page.choose(words, value)
    page.press("One step")
    page.reach(f"{STEP} === 1 && {STATE} === 'paused'")
    assert [url for url in page.asked if "digits.png" in url]
    page.press("One step")
    page.reach(f"{STEP} === 2")
    page.press("Go on")
    page.reach(f"{ACCURACY} > 40")
    page.press("Pause")
    page.reach(f"{STATE} === 'paused'")
    page.tab.wait_for_timeout(300)  # what was under way arrives
    step = page.tab.evaluate(STEP)
    page.tab.wait_for_timeout(500)
    assert page.tab.evaluate(STEP) == step > 90
    page.press("One step")
    page.reach(f"{STEP} === {step + 1}")
    assert page.tab.locator(".live-voice[aria-live]").first.inner_text().startswith("Paused: epoch")
    # The strip says what is read; the file that is saved reads the same.
    with page.tab.expect_download() as wait:
        page.press("Save as safetensors")
    wait.value.save_as(tmp_path / "model.safetensors")
    loaded = load_weights(tmp_path / "model.safetensors")
    assert loaded.config.dim == 16
    assert loaded.metadata["steps"] == step + 1
    from test_live_vit import digits

    images, labels = digits(0, 1000)
    answers = loaded.model(loaded.normalise(images)).argmax(1)
    assert (answers == labels).float().mean() > 0.35
    shown = page.tab.locator(".live-strip b").all_inner_texts()
    assert [int(answer) for answer in shown] == answers[:20].tolist()
    page.press("Reset")
    page.reach(f"{STEP} === 0 && {STATE} === 'paused'")
    assert "Before, width 16, blocks 1" in page.tab.inner_text(".live-legend")


def test_what_is_drawn_grows(page: Page) -> None:
    page.press("Start")
    page.reach(f"{STEP} > 20")
    page.press("Pause")
    for name in ("maps", "positions", "filters"):
        page.tab.locator(f"[data-live={name}]").scroll_into_view_if_needed()
        page.reach(
            f"""[...document.querySelectorAll('[data-live={name}] canvas')].some(canvas => {{
                const {{ width, height }} = canvas;
                const pixels = canvas.getContext('2d').getImageData(0, 0, width, height).data;
                return new Set(new Uint32Array(pixels.buffer)).size > 8;
            }})"""
        )
    assert page.tab.locator("[data-live=maps] canvas").count() == 2
    assert "take from each, on average" in page.text("maps")
    # One of the maps: Enter chooses the patch that the arrow keys reached.
    page.tab.locator("[data-live=maps] canvas").first.focus()
    for key in ("ArrowRight", "ArrowRight", "Enter"):
        page.tab.keyboard.press(key)
    page.reach("/row 1, column 2/.test(document.querySelector('[data-live=maps] p').textContent)")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barriers_while_it_trains(page: Page, theme: str) -> None:
    page.tab.evaluate("theme => document.documentElement.dataset.theme = theme", OTHER[theme])
    page.tab.wait_for_timeout(500)
    page.tab.evaluate(AXE)
    found = page.tab.evaluate("axe.run('article', {resultTypes: ['violations']})")["violations"]
    assert [(barrier["id"], barrier["nodes"][0]["html"][:200]) for barrier in found] == []


@pytest.mark.parametrize(
    ("switch", "words", "told"),
    [
        ("positions", "no positions", "maps"),
        ("residual connections", "no residuals", "without residual connections"),
        ("norms", "no norms", "without norms"),
        ("division by √d", "no division by √d", "without the division by √d"),
    ],
)
def test_a_switch_takes_a_part_away(page: Page, switch: str, words: str, told: str) -> None:
    page.tab.get_by_label(switch, exact=True).uncheck()
    page.reach(f"{STATE} === 'paused' && {STEP} === 0")
    assert words in page.tab.locator(".live-legend li").first.inner_text()
    if switch == "positions":
        page.tab.locator("[data-live=positions]").scroll_into_view_if_needed()
        page.reach(
            "document.querySelector('[data-live=positions] p').textContent.includes('no positions')"
        )
    else:
        page.press("Save as safetensors")
        page.tab.locator("[role=alert]").wait_for()
        assert page.tab.inner_text("[role=alert]").endswith(f"vitcore has no ViT {told}.")
    page.tab.get_by_label(switch, exact=True).check()
    page.reach(f"{STATE} === 'paused' && {STEP} === 0")


def test_an_experiment_starts_and_the_model_is_handed_over(page: Page, tmp_path: Path) -> None:
    page.press("Read a class token: train it")
    page.reach(f"{STATE} === 'running' && {STEP} > 2")
    assert page.tab.get_by_label("class token").is_checked()
    assert page.tab.get_by_label("Width", exact=True).input_value() == "32"
    page.press("Pause")
    page.tab.locator("[data-live=maps]").scroll_into_view_if_needed()
    page.reach("document.querySelector('[data-live=maps] p').textContent.includes('class token')")
    page.press("Take it to Try it")
    page.tab.wait_for_url("**/try_it.html?model=trained")
    page.reach("document.documentElement.dataset.live === 'ready'")
    assert page.tab.evaluate("lab.model.config.class_token && lab.model.N === 17")
    assert page.tab.get_by_text("This is the model that you trained.").count() == 1
    found = page.tab.evaluate("[...new Uint8Array(lab.buffer)]")
    (tmp_path / "taken.safetensors").write_bytes(bytes(found))
    loaded = load_weights(tmp_path / "taken.safetensors")
    assert loaded.config.class_token
    assert loaded.metadata["trained"] == "in the page Train it"


def test_opened_as_a_file_it_says_what_to_do(site: Path, browser: Any) -> None:  # noqa: F811
    tab = browser.new_page()
    tab.goto((site / "book" / "train_it.html").as_uri())
    assert "python -m http.server" in tab.inner_text("#live-message")
    tab.close()


PARTS = """
import { Trainer } from "LIVE/train.mjs";
import { EXPERIMENTS } from "LIVE/experiments.mjs";
import { readDigits } from "LIVE/digits.mjs";
const { train } = await readDigits(read(process.argv[2]));
const losses = (options) => {
  const trainer = new Trainer(train, options);
  return [0, 1, 2, 3].map(() => trainer.train().loss);
};
const told = { "": losses({}) };
for (const [name, { options }] of Object.entries(EXPERIMENTS)) told[name] = losses(options);
tell(told);
"""


def test_each_experiment_is_another_run(tmp_path: Path) -> None:
    told = node(tmp_path, PARTS, str(OUT))
    assert len({tuple(losses) for losses in told.values()}) == len(told) == 9
