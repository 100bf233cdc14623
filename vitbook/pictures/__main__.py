# SPDX-License-Identifier: MIT
"""Write the pictures of the book's pages as SVG files: python -m vitbook.pictures OUTDIR."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from .pages import write_pictures


def main(arguments: Sequence[str] | None = None) -> None:
    """Write every picture into the folder that the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m vitbook.pictures", description="Draw the pictures of the book's pages."
    )
    parser.add_argument("outdir", help="the folder to write the SVG files to")
    for path in write_pictures(parser.parse_args(arguments).outdir):
        print(path)


if __name__ == "__main__":
    main()
