"""What the verbs of a backend are given, and what they give: plain tuples."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Seq
from typing import NamedTuple, TypeAlias

from specee.backends.handles import CopyIndex, DraftHead, FittedColumn, SequenceState
from specee.types import Sampling

Work: TypeAlias = Seq[tuple[SequenceState, Seq[int]]]
"""Rows of several sequences: (sequence, slots) pairs; results are concatenated in this order.

A sequence may appear once only; its slots must be distinct.
"""


class ChainCall(NamedTuple):
    """A chain of drafts to make for one sequence.

    At most ``length`` tokens (1 or more), none after one whose confidence is under ``stop_below``.
    """

    sequence: SequenceState
    column: FittedColumn
    length: int
    stop_below: float
    sampling: Sampling


class LayerChainCall(NamedTuple):
    """A chain of drafts from a shallow layer, in rows that wait there to be verified.

    At most ``length`` tokens (1 or more), each :meth:`.Backend.draft`'s behind ``layer`` layers (1 to
    num_layers - 1) with ``head``, None for the model's own; none after one whose confidence is under
    ``stop_below``.
    """

    sequence: SequenceState
    layer: int
    head: DraftHead | None
    length: int
    stop_below: float
    sampling: Sampling


class ExitChainCall(NamedTuple):
    """A chain of drafts from where predictors let rows go, which wait there to be verified.

    At most ``length`` tokens (1 or more), each :meth:`.Backend.leave_early`'s without ``confirm``, by
    ``layers`` and ``threshold`` as in :class:`ExitCall`; none where no predictor lets go, and none after one
    whose chance is under ``stop_below``.
    """

    sequence: SequenceState
    column: FittedColumn
    length: int
    stop_below: float
    layers: Seq[int]
    threshold: float
    sampling: Sampling


class RankCall(NamedTuple):
    """A row, by its slot, to guess the next token of."""

    sequence: SequenceState
    column: FittedColumn
    slot: int


class AskCall(NamedTuple):
    """Rows of one sequence, by their slots, to ask predictors about.

    ``rows``: which of the :class:`ExitRows` each of them is, counted from 0. ``sampling`` draws their tokens.
    """

    sequence: SequenceState
    slots: Seq[int]
    rows: Seq[int]
    sampling: Sampling


class Answer(NamedTuple):
    """The predictor's chance that ``token``, a row's likeliest candidate by its layer, is the final one."""

    chance: float
    token: int


class ExitCall(NamedTuple):
    """A row, by its slot, to take through layers until a predictor lets it go.

    ``layers``: those to check, ascending; none takes the row to the last one. ``threshold``: a row leaves
    where the predictor's chance is above it. ``sampling`` draws its token.
    """

    sequence: SequenceState
    column: FittedColumn
    slot: int
    layers: Seq[int]
    threshold: float
    sampling: Sampling


class TreeCall(NamedTuple):
    """A tree of drafts to make for one sequence: EAGLE-2 (Li et al., EMNLP 2024).

    ``nodes`` are kept at most, none of them more than ``depth`` drafts deep. At each depth ``width`` nodes at
    most get children, each ``children`` at most. A node's *chance* is the product of the shares on its path:
    none is kept whose chance is under ``stop_below``, the likeliest first one aside, and there is no further
    depth where the nodes that would get children have less than ``deepen_from`` together. ``likely``: how
    many tokens to name after each node that the block has looked behind, 0 for none.
    """

    sequence: SequenceState
    column: FittedColumn
    nodes: int
    depth: int
    width: int
    children: int
    stop_below: float
    deepen_from: float
    sampling: Sampling
    likely: int = 0


class Exit(NamedTuple):
    """Where a row left, 0 if it did not; the token after it, and the predictor's chance that it is final.

    A row that went through all layers has the last one and a chance of 1.
    """

    layer: int
    token: int
    confidence: float


class Exits(NamedTuple):
    """What came of each call, and the seconds spent on candidates, in layers with predictors, in the head."""

    exits: list[Exit]
    draft: float
    layers: float
    head: float


class DraftedTree(NamedTuple):
    """Nodes of a tree, likeliest first, the one found first among equals: parents before their children.

    ``parents`` are indices, -1 for the end of the text: what :meth:`SequenceState.branch` takes. ``chances``
    never grow along a path, nor along the list. ``likely``: what :meth:`Backend.rank` gives after the end of
    the text, and then after each node; nothing for nodes that the block has not looked behind, among which is
    none that has children. The whole list is empty where a call asked for nothing.
    """

    tokens: list[int]
    parents: list[int]
    chances: list[float]
    likely: list[list[int]]


RoundDrafts: TypeAlias = ChainCall | TreeCall | LayerChainCall | ExitChainCall
"""What a round can draft beside copies."""


class CopyCall(NamedTuple):
    """What followed the text's latest tokens when they last occurred, to be drafted again.

    At most ``length`` tokens (1 or more), one alone if its chance is under ``stop_below``.
    """

    ngrams: CopyIndex
    length: int
    stop_below: float


class RoundCall(NamedTuple):
    """A round of one sequence: drafts are verified, and what the full model confirms becomes text.

    ``copies`` are drafted first, and where the text offers none ``drafts``, of the same sequence; without
    either the speculative rows that are there, if any. ``sampling`` draws the text; ``ends`` are tokens after
    which it is over, and ``remaining`` how many it may still be given, 1 or more.
    """

    sequence: SequenceState
    sampling: Sampling
    ends: Collection[int]
    remaining: int
    drafts: RoundDrafts | None = None
    copies: CopyCall | None = None


class RoundText(NamedTuple):
    """``tokens`` are text now, and only the last one can be one that ends it.

    The newest row has been through no layer yet, unless the text ended with an accepted draft.

    ``accepted``: slots that accepted drafts were in, one for each of the first tokens. Of the drafts made in
    the call: ``confidences``, ``depth``, the most of them in a row, whether they were ``copied``, and the
    layers where predictors let go of them, ``exits``; their slots followed the text's end.
    """

    tokens: tuple[int, ...]
    accepted: list[int]
    confidences: tuple[float, ...]
    depth: int
    copied: bool
    exits: tuple[int, ...] = ()


class RoundTurn(NamedTuple):
    """A round of each call: what came of it, and seconds.

    Spent on drafts and on heads for them (those of exit layers; a block's are part of the former), in layers
    and in the head for verification.
    """

    texts: list[RoundText]
    draft: float
    draft_head: float
    layers: float
    head: float
