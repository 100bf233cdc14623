# SPDX-License-Identifier: MIT
"""Set the repository's address everywhere: python -m tools.set_repository URL, or make repository.

The address stands in vitbook/records.py; every other place is a copy that this script writes and
that tests/test_repository.py holds to it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "vitbook/records.py"
ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9][A-Za-z0-9-]*)/([A-Za-z0-9._-]+)")
# Files in which the address must stand; the notebooks come on top.
COPIES = (
    "CITATION.cff",
    "README.md",
    "_config.yml",
    "book/cite.md",
    "book/errors.md",
    "book/setup.md",
    "book/try_it.md",
    "pyproject.toml",
)


def read_repository(root: Path = ROOT) -> str:
    """Return the address from its one source.

    Raises:
        ValueError: if the source does not say it.
    """
    text = (root / SOURCE).read_text(encoding="utf-8")
    found = re.search(r'^REPOSITORY(?::[^=]+)?\s*=\s*"([^"]+)"', text, re.MULTILINE)
    if not found:
        raise ValueError(f'{SOURCE} holds no line REPOSITORY = "https://github.com/...".')
    return found.group(1)


def read_version(root: Path = ROOT) -> str:
    """Return vitcore's version without importing torch."""
    text = (root / "vitcore/__init__.py").read_text(encoding="utf-8")
    found = re.search(r'^__version__\s*=\s*"([^"]+)"', text, re.MULTILINE)
    if not found:
        raise ValueError('vitcore/__init__.py holds no line __version__ = "...".')
    return found.group(1)


def split_address(address: str) -> tuple[str, str]:
    """Return (owner, name) of an address such as https://github.com/owner/name.

    Raises:
        ValueError: if the address has another form.
    """
    found = ADDRESS.fullmatch(address)
    if not found:
        raise ValueError(
            f"The address {address!r} does not fit; give one like https://github.com/owner/name, "
            "because the Colab links and the site's address follow from it."
        )
    return found.group(1), found.group(2)


def site_address(address: str) -> str:
    """Return where GitHub Pages serves the repository's site, with a slash at the end."""
    owner, name = split_address(address)
    if name.lower() == f"{owner.lower()}.github.io":
        return f"https://{name.lower()}/"
    return f"https://{owner.lower()}.github.io/{name}/"


def tracked_files(root: Path = ROOT) -> list[Path]:
    """Return the files that git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True, text=True)
    return [root / name for name in sorted(listed.stdout.split("\0")) if (root / name).is_file()]


def replacements(old: str, new: str) -> dict[str, str]:
    """Return every form in which an address may stand, with what replaces it."""
    old_site, new_site = site_address(old), site_address(new)
    return {
        old: new,
        "/".join(split_address(old)): "/".join(split_address(new)),
        old_site: new_site,
        old_site.rstrip("/"): new_site.rstrip("/"),
    }


def replace_in(text: str, table: dict[str, str]) -> str:
    """Replace all forms in one pass, so that no replacement meets the result of another."""
    forms = "|".join(re.escape(form) for form in sorted(table, key=len, reverse=True))
    pattern = re.compile(rf"(?<![A-Za-z0-9-])({forms})(?![A-Za-z0-9-])")
    return pattern.sub(lambda found: table[found.group(1)], text)


def set_repository(new: str, root: Path = ROOT) -> list[str]:
    """Write ``new`` wherever the old address stands; return the names of the files changed.

    Raises:
        ValueError: if the address does not have the form https://github.com/owner/name.
    """
    new = new.strip().removesuffix("/").removesuffix(".git")
    old = read_repository(root)
    table = replacements(old, new)
    changed = []
    for path in tracked_files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # pictures and weights hold no address
        fresh = replace_in(text, table)
        if fresh != text:
            path.write_text(fresh, encoding="utf-8")
            changed.append(path.relative_to(root).as_posix())
    return changed


def main() -> None:
    """Set the address given on the command line."""
    if len(sys.argv) != 2:
        sys.exit("Say which: python -m tools.set_repository https://github.com/owner/name")
    try:
        changed = set_repository(sys.argv[1])
    except ValueError as error:
        sys.exit(str(error))
    for name in changed:
        print(f"Set the address in {name}")
    print(f"The repository is {read_repository()}, its site {site_address(read_repository())}")


if __name__ == "__main__":
    main()
