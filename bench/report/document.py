"""A recorded run, and the one HTML file made of it."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.errors import BackendUnavailableError, ConfigurationError

from . import kernels, plots, tables
from .table import Table

_TITLES = {
    "speed": "Speed",
    "speculation": "Speculation",
    "rows": "Rows and context",
    "builds": "Builds beside each other",
    "nodes": "Nodes of trees",
    "batch": "Batches",
    "formats": "Formats of the weights",
    "perplexity": "Perplexity",
    "memory": "Memory",
    "exactness": "Exactness",
    "lossless": "Lossless speculation",
    "overhead": "Python's share",
    "head-stages": "The head in two stages",
    "drop-in": "In the place of generate()",
    "clients": "Clients of transformers",
    "planted": "Planted exit layers",
    "regret": "No regret",
    "ablation": "Parts of DEL",
    "splices": "Texts that change",
    "kernels": "Kernels",
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #000; background: #fff; max-width: 1100px;
       margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; border-bottom: 1px solid #999; }
table { border-collapse: collapse; margin: 0.8em 0; font-variant-numeric: tabular-nums; font-size: 0.92em; }
caption { text-align: left; font-weight: 600; padding: 0.3em 0; }
th, td { padding: 0.25em 0.8em; text-align: right; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; }
th.name, td.name { text-align: left; } th { border-bottom: 1px solid #000; }
img { max-width: 100%; } .note { font-size: 0.9em; } .scroll { overflow-x: auto; }
"""


@dataclass(frozen=True)
class Report:
    """What was measured: parts by name, and the machine."""

    machine: dict[str, Any]
    parts: dict[str, dict[str, Any]]

    def tables(self) -> list[Table]:
        """All tables, in the order of the parts."""
        done = [(name, part) for name, part in self.parts.items() if not reason(part)]
        return [table for name, part in done for table in tables.of(kind(name), part)]


def reason(part: dict[str, Any]) -> str | None:
    """Why a part has no result; None if it has one."""
    if "left_out" in part:
        return f"left out: {part['left_out']}"
    return f"failed: {part['error']}" if "error" in part else None


def kind(name: str) -> str:
    """``speed-bf16`` is of kind ``speed``, ``drop-in-fp32`` of kind ``drop-in``."""
    known = (title for title in _TITLES if name == title or name.startswith(f"{title}-"))
    return next(known, name.split("-", maxsplit=1)[0])


def load(path: Path) -> Report:
    """Read what ``specee bench`` wrote, or a folder of results of single measurements.

    Raises ConfigurationError for anything else.
    """
    if path.is_dir():
        found = {file.stem: _read(file) for file in sorted(path.glob("*.json"), key=lambda file: file.stem)}
        if not found:
            raise ConfigurationError(
                f"{path} holds no results; measure with specee bench or scripts/bench --save"
            )
        machines = [part.pop("machine", {}) for part in found.values()]
        order = [name for wanted in _TITLES for name in found if kind(name) == wanted]
        return Report(machines[0], {name: found[name] for name in order})
    recorded = _read(path)
    if not isinstance(recorded.get("parts"), dict):
        raise ConfigurationError(f"{path} is not what specee bench writes: it has no parts")
    return Report(recorded.get("machine", {}), recorded["parts"])


def _read(path: Path) -> dict[str, Any]:
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(recorded, dict):
        raise ConfigurationError(f"{path}: holds a {type(recorded).__name__}, results are an object")
    return recorded


def check_plots() -> None:
    """Raise BackendUnavailableError without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f'the HTML report needs matplotlib: pip install "specee[bench]" ({error})'
        ) from error


def as_html(report: Report) -> str:
    """The whole report, images included."""
    parts = [f"<h1>specee on {_text(report.machine.get('processor', 'this machine'))}</h1>", _machine(report)]
    for name, part in report.parts.items():
        parts.append(f"<h2>{_text(_TITLES.get(kind(name), name))}{_variant(name)}</h2>")
        if why := reason(part):
            parts.append(f"<p>{_text(why)}</p>")
            continue
        for title, image in images(name, part):
            encoded = base64.b64encode(image).decode()
            parts.append(f'<img alt="{_text(title)}" src="data:image/svg+xml;base64,{encoded}">')
        parts += [_table(table) for table in tables.of(kind(name), part, detailed=True)]
    body = "\n".join(parts)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>specee bench</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def images(name: str, part: dict[str, Any], image: str = "svg") -> Iterator[tuple[str, bytes]]:
    """Titles and images of a part that has a result."""
    if kind(name) in ("speed", "speculation"):
        yield "speed of the contenders", plots.drawn(plots.speed_bars, part, kind=image)
    elif kind(name) == "rows":
        yield "cost of rows and context", plots.drawn(plots.row_curves, part, kind=image)
    elif kind(name) == "kernels":
        found = kernels.bounded(kernels.points(part))
        for model in dict.fromkeys(point.model for point in found):
            mine = [point for point in found if point.model == model]
            yield f"roofline {model}", plots.drawn(plots.roofline, mine, f"Kernels of {model}", kind=image)


def _variant(name: str) -> str:
    more = name.removeprefix(kind(name)).removeprefix("-")
    return f": {_text(more)}" if more else ""


def _machine(report: Report) -> str:
    machine = dict(report.machine)
    packages = ", ".join(f"{n} {v}" for n, v in machine.pop("packages", {}).items() if v)
    rows = [(key.replace("_", " "), str(value)) for key, value in machine.items() if value is not None]
    return _table(Table("Machine", ("", ""), [*rows, ("packages", packages)], names=2))


def _table(table: Table) -> str:
    def line(cells: tuple[str, ...], tag: str) -> str:
        found = []
        for index, cell in enumerate(cells):
            align = " class='name'" if index < table.names else ""
            found.append(f"<{tag}{align}>{_text(cell)}</{tag}>")
        return f"<tr>{''.join(found)}</tr>"

    head = line(table.header, "th") if any(table.header) else ""
    rows = "".join(line(row, "td") for row in table.rows)
    note = f"<p class='note'>{_text(table.note)}</p>" if table.note else ""
    return (
        f"<div class='scroll'><table><caption>{_text(table.title)}</caption><thead>{head}</thead>"
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _text(value: str) -> str:
    return html.escape(str(value))
