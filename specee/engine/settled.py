"""What a step has made of a sequence, before it counts."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.acceptance import Walk
from specee.clock import Clock
from specee.drafting import DraftTree
from specee.engine.sequence import ActiveSequence
from specee.policies import DrafterTree, DraftSource, Round
from specee.types import FinishReason


class Settled(NamedTuple):
    """A sequence, what its round gave, and why the text is over, None while it goes on.

    ``accepted``: slots of accepted drafts, which are to be committed; None where the backend has made the
    rows the text already.
    """

    sequence: ActiveSequence
    round: Round
    end: FinishReason | None
    accepted: Seq[int] | None

    def commit(self) -> None:
        """Make it count."""
        tokens = self.round.tokens
        if self.accepted is None:
            self.sequence.extend(tokens, self.end)
        else:
            self.sequence.commit(tokens, self.accepted, self.end, drafted=self.round.drafted > 0)


class Turn(NamedTuple):
    """What one execution of a plan gave, and the clock of its backend calls."""

    settled: list[Settled]
    clock: Clock


def walked(sequence: ActiveSequence, tree: DraftTree | None, walk: Walk) -> Settled:
    """Of a walk down a tree; None where nothing was drafted."""
    accepted = () if tree is None else [tree.slots[node] for node in walk.path]
    entry = round_of(sequence.id, walk.tokens, tree, walk.path)
    return Settled(sequence, entry._replace(exits=walk.exits) if walk.exits else entry, walk.end, accepted)


def round_of(sequence: int, tokens: tuple[int, ...], tree: DraftTree | None, path: Seq[int]) -> Round:
    """``path``: the accepted nodes."""
    if tree is None or not tree.shown:
        return Round(sequence, tokens)
    drafts = Round(
        sequence,
        tokens,
        tree.draft.source,
        tree.drafted,
        len(path),
        tuple(tree.confidences),
        exits=tuple(tree.exits),
        pruned=tuple(tree.pruned),
    )
    if not isinstance(tree.draft.source, DrafterTree):
        return drafts
    return drafts._replace(path=tuple([node - 1 for node in path]), depth=tree.depth)


def drafted_round(
    sequence: int,
    source: DraftSource,
    tokens: tuple[int, ...],
    path: tuple[int, ...],
    confidences: tuple[float, ...],
    depth: int,
    exits: tuple[int, ...] = (),
) -> Round:
    """Of drafts that the backend has made by itself. ``path``: the accepted ones, counted from 0."""
    if not confidences:
        return Round(sequence, tokens)
    if not isinstance(source, DrafterTree):
        return Round(sequence, tokens, source, len(confidences), len(path), confidences, exits=exits)
    return Round(sequence, tokens, source, len(confidences), len(path), confidences, path, depth)
