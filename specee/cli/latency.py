"""The latency table as lines of text: what rows cost, and what drafts do."""

from __future__ import annotations

from collections.abc import Iterator

from specee.policies import Latency


def latency_lines(table: Latency, layers: int) -> Iterator[str]:
    """What policies know of the time of a step, for a model of ``layers`` layers."""
    around = table.call + table.step
    wholes = [layers * layer + head + around for layer, head in zip(table.layer, table.head, strict=True)]
    yield f"{'rows':<20}{'layer us':>12}{'head us':>12}{'step ms':>12}{'times one':>12}"
    for rows, layer, head, whole in zip(table.rows, table.layer, table.head, wholes, strict=True):
        columns = f"{layer * 1e6:>12.1f}{head * 1e6:>12.1f}{whole * 1e3:>12.2f}{whole / wholes[0]:>12.2f}"
        yield f"{rows:<20}{columns}"
    call, step = table.call * 1e6, table.step * 1e6
    yield f"beside its work a call takes {call:.0f} us, and the loop {step:.0f} us a turn"
    if exits := exit_layers(layers):
        costs = ", ".join(
            f"{draft_seconds(table, exit_layer) / wholes[0]:.2f} at {exit_layer}" for exit_layer in exits
        )
        yield f"a token drafted at an exit layer costs, in plain steps: {costs}"


def exit_layers(layers: int) -> list[int]:
    """A quarter, a half and three quarters of the way."""
    return sorted({layers * part // 4 for part in (1, 2, 3)} - {0, layers})


def draft_seconds(table: Latency, exit_layer: int) -> float:
    """One token drafted at ``exit_layer``: one row through the layers before it and the model's head."""
    return table.layers_seconds(exit_layer, 1) + table.head_seconds(1)
