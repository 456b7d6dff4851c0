"""How many rows passed how many layers together in a verification: what its time is compared with."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.drafting import DraftTree
from specee.policies import ExitLayer, LeaveEarly, Plan, PredictedExit, PredictedTree


def draft_turns(trees: Seq[DraftTree | None]) -> int:
    """Tokens drafted one after the other with layers and a head: the longest chain of these."""
    chains = [tree.drafted for tree in trees if tree is not None and isinstance(tree.draft.source, ExitLayer)]
    return max(chains, default=0)


def in_step(plan: Plan, trees: Seq[DraftTree | None]) -> bool:
    """Whether all rows of a step were verified in passes that :func:`verified_rows` knows of.

    Not where tokens leave unverified, nor where drafts have gone to layers of their own; and trees that stop
    to be pruned go there beside nobody else.
    """
    kinds = {None if tree is None or not tree.shown else type(tree.draft.source) for tree in trees}
    if isinstance(plan, LeaveEarly) or PredictedExit in kinds:
        return False
    return PredictedTree not in kinds or len(kinds) == 1


def verified_rows(trees: Seq[DraftTree | None], layers: int) -> tuple[int, list[tuple[int, int]]]:
    """Rows at the head, and (layers, rows) parts of the way there, for a model of ``layers`` layers.

    Of a chain drafted at an exit layer all rows but the newest wait at that layer. Rows of a tree that
    predictors ruled out were in the pass up to the layer where they did.
    """
    joining: dict[int, int] = {0: 0}
    for tree in trees:
        if tree is None:
            joining[0] += 1
            continue
        source = tree.draft.source
        waiting = tree.drafted if isinstance(source, ExitLayer) else 0
        joining[0] += tree.drafted + 1 - waiting + len(tree.pruned)
        for gone in tree.pruned:
            joining[gone.layer] = joining.get(gone.layer, 0) - 1
        if waiting and isinstance(source, ExitLayer):
            joining[source.layer] = joining.get(source.layer, 0) + waiting
    parts, rows = [], 0
    begins = sorted(joining)
    for begin, end in zip(begins, [*begins[1:], layers], strict=True):
        rows += joining[begin]
        parts.append((end - begin, rows))
    return rows, parts
