"""How many rows passed how many layers together in a verification: what its time is compared with."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.policies import (
    Draft,
    ExitLayer,
    LeaveEarly,
    Plan,
    PredictedExit,
    PredictedTree,
    Round,
    Speculate,
)


def in_step(plan: Plan, rounds: Seq[Round]) -> bool:
    """Whether all rows of a step were verified in passes that :func:`verified_rows` knows of.

    Not where tokens leave unverified, nor where drafts have gone to layers of their own; and trees that stop
    to be pruned go there beside nobody else.
    """
    if isinstance(plan, Speculate) and True in [_asks(draft) for draft in plan.drafts]:
        return False
    kinds = {None if entry.source is None else type(entry.source) for entry in rounds}
    if isinstance(plan, LeaveEarly):
        return False
    return PredictedTree not in kinds or len(kinds) == 1


def _asks(draft: Draft) -> bool:
    """Whether its row goes to layers where predictors are asked, also where none lets it go."""
    if type(draft.source) is PredictedExit and draft.length:
        return True
    return draft.otherwise is not None and _asks(draft.otherwise)


def verified_rows(rounds: Seq[Round], layers: int) -> tuple[int, list[tuple[int, int]]]:
    """Rows at the head, and (layers, rows) parts of the way there, for a model of ``layers`` layers.

    Of a chain drafted at an exit layer all rows but the newest wait at that layer. Rows of a tree that
    predictors ruled out were in the pass up to the layer where they did.
    """
    joining: dict[int, int] = {0: 0}
    for entry in rounds:
        source = entry.source
        waiting = entry.drafted if isinstance(source, ExitLayer) else 0
        joining[0] += entry.drafted + 1 - waiting + len(entry.pruned)
        for gone in entry.pruned:
            joining[gone.layer] = joining.get(gone.layer, 0) - 1
        if waiting and isinstance(source, ExitLayer):
            joining[source.layer] = joining.get(source.layer, 0) + waiting
    parts, rows = [], 0
    begins = sorted(joining)
    for begin, end in zip(begins, [*begins[1:], layers], strict=True):
        rows += joining[begin]
        parts.append((end - begin, rows))
    return rows, parts
