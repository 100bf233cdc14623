# SPDX-License-Identifier: MIT
"""The repository's address stands in vitbook/records.py, and every copy of it agrees."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tools import notebooks, set_repository
from tools.set_repository import ROOT, read_repository, read_version, site_address
from tools.setup_cell import setup_source

REPOSITORY = read_repository()
SITE = site_address(REPOSITORY)
SLUG = "/".join(set_repository.split_address(REPOSITORY))
# Addresses of the form of this book's own, wherever they stand in a file of the book.
OWN = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+?(?=[/\s\"')`>}\\]|\.git\b|$)", re.MULTILINE)


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_configuration() -> None:
    config = yaml.safe_load(text("_config.yml"))
    assert config["repository"]["url"] == REPOSITORY
    assert config["html"]["baseurl"] == SITE
    assert config["sphinx"]["config"]["ogp_site_url"] == SITE


def test_citation() -> None:
    citation = yaml.safe_load(text("CITATION.cff"))
    assert citation["repository-code"] == REPOSITORY
    assert citation["url"] == SITE
    assert citation["version"] == read_version()


def test_package_urls() -> None:
    assert f'Repository = "{REPOSITORY}"' in text("pyproject.toml")
    assert f'Book = "{SITE}"' in text("pyproject.toml")


@pytest.mark.parametrize("name", set_repository.COPIES)
def test_copies(name: str) -> None:
    """Every GitHub address in these files is ours or one of the few known others."""
    known = {"https://github.com/you/your-book", "https://github.com/you/book"}
    assert REPOSITORY in text(name)
    assert set(OWN.findall(text(name))) - known == {REPOSITORY}


def test_readme_and_site() -> None:
    assert f"<{SITE}>" in text("README.md")
    assert f"colab.research.google.com/github/{SLUG}/blob/main/notebooks/" in text("README.md")


def test_setup_cell() -> None:
    assert f'SITE = "{SITE}"' in setup_source()


@pytest.mark.parametrize("path", notebooks.notebook_paths(), ids=lambda path: path.stem)
def test_notebooks(path: Path) -> None:
    cells = [cell for cell in notebooks.read(path).cells if notebooks.is_setup(cell)]
    assert [cell.source for cell in cells] == [setup_source()]


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("https://github.com/Jane/vit", "https://jane.github.io/vit/"),
        ("https://github.com/Jane/jane.github.io", "https://jane.github.io/"),
    ],
)
def test_site_address(address: str, site: str) -> None:
    assert site_address(address) == site


@pytest.mark.parametrize("bad", ["", "vit", "http://github.com/a/b", "https://github.com/a"])
def test_bad_addresses(bad: str) -> None:
    with pytest.raises(ValueError, match=r"https://github\.com/owner/name"):
        site_address(bad)


def test_set_repository_reaches_every_copy(tmp_path: Path) -> None:
    """In a copy of the tracked text files, the old address is gone and the new one stands."""
    for path in set_repository.tracked_files():
        if path.suffix not in {".safetensors", ".png", ".ico", ".npz", ".jpg"}:
            target = tmp_path / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    before = {path: path.read_text("utf-8") for path in set_repository.tracked_files(tmp_path)}
    # In parts, so that this file does not hold the new address before it is set.
    there = "https://github.com/" + "Jane-Doe" + "/new.book"
    changed = set_repository.set_repository(f"{there}/", tmp_path)

    assert read_repository(tmp_path) == there
    chapters = [f"notebooks/{path.name}" for path in notebooks.notebook_paths()]
    assert {*set_repository.COPIES, set_repository.SOURCE, *chapters} <= set(changed)
    for path, old in before.items():
        new = path.read_text("utf-8")
        assert SLUG not in new, f"{path.name} keeps the old address"
        assert SITE not in new, f"{path.name} keeps the old site"
        assert len(new.splitlines()) == len(old.splitlines())
    config = yaml.safe_load((tmp_path / "_config.yml").read_text("utf-8"))
    assert config["html"]["baseurl"] == site_address(there)

    # And back again: nothing else was touched.
    set_repository.set_repository(REPOSITORY, tmp_path)
    for path, old in before.items():
        assert path.read_text("utf-8") == old, f"{path.name} differs after going there and back"


def test_longer_names_are_left_alone() -> None:
    table = set_repository.replacements("https://github.com/a/b", "https://github.com/c/d")
    kept = "https://github.com/a/b-two xa/b https://aa.github.io/b/"
    assert set_repository.replace_in(kept, table) == kept
    assert set_repository.replace_in("git+https://github.com/a/b.", table) == (
        "git+https://github.com/c/d."
    )
