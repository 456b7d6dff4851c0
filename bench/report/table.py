"""A table, and how a terminal shows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Cells as text. The first ``names`` columns are left-aligned, those after them right-aligned."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    names: int = 1


def as_text(table: Table) -> str:
    """For a terminal."""
    lines = [table.header, *table.rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(table.header))]

    def one(line: tuple[str, ...]) -> str:
        cells = zip(line, widths, strict=True)
        aligned = [c.ljust(w) if i < table.names else c.rjust(w) for i, (c, w) in enumerate(cells)]
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    note = [table.note] if table.note else []
    return "\n".join([table.title, one(table.header), rule, *map(one, table.rows), *note])
