"""Make the report of a recorded run, or of a folder of results, anew.

    python -m bench.report bench/results [--out report.html] [--images FOLDER]

``--images`` also writes every plot as an SVG file of its own, for a README.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from specee.errors import SpeceeError

from . import document, tables


def main() -> None:
    """Read, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recorded", type=Path, help="bench.json of specee bench, or a folder of results")
    parser.add_argument("--out", type=Path, help="HTML file to write")
    parser.add_argument("--images", type=Path, help="folder for SVG files")
    options = parser.parse_args()
    try:
        report = document.load(options.recorded)
        print("\n\n".join(tables.as_text(table) for table in report.tables()))
        if options.out:
            document.check_plots()
            options.out.write_text(document.as_html(report), encoding="utf-8")
        if options.images:
            document.check_plots()
            options.images.mkdir(parents=True, exist_ok=True)
            for name, part in report.parts.items():
                for title, image in document.images(name, part):
                    stem = name if document.kind(name) != "kernels" else title.replace(" ", "-")
                    (options.images / f"{stem}.svg").write_bytes(image)
    except SpeceeError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
