"""What every backend offers: sequences of rows, and verbs that move rows through layers.

A *row* is one token at one position. Rows are named by their cache slot: the committed position p
lives in slot p, speculative rows live in slots at or past the committed length. For one sequence
``frontier[l]`` counts the committed positions whose layer ``l`` is done; it never grows with depth.

Row results do not depend on the rows beside them, on the number of threads, or on how a prompt is
cut into calls (same backend, same instruction set, same build): hidden states, cache entries and
logits are identical to the bit. An accepted branch of a tree has the very bits of a plain chain.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Sequence as Seq
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from specee.models.drafter_parts import DrafterParts
from specee.models.exit_parts import ExitParts
from specee.models.speculator import Adapter
from specee.types import KVDtype, ModelConfig, RowInfo, Sampling, WeightFormat

DraftFormat: TypeAlias = Literal["Q8_0", "Q4_1"]
"""Blocks of 32 weights of 8 or 4 bits: a coarser draft comes sooner, and is right a little less often."""
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class SequenceState(Protocol):
    """Rows and KV cache of one sequence."""

    @property
    def length(self) -> int:
        """Committed positions."""

    @property
    def capacity(self) -> int:
        """Slots reserved: committed positions plus live speculative rows may not exceed it."""

    @property
    def frontier(self) -> tuple[int, ...]:
        """Committed positions done, per layer; ``num_layers`` entries, never increasing."""

    @property
    def speculative(self) -> tuple[int, ...]:
        """Slots of the live speculative rows, parents before children."""

    def row(self, slot: int) -> RowInfo:
        """The row in ``slot``. Raises RowError if there is none."""

    def append(self, tokens: Seq[int]) -> range:
        """Add committed positions (no layer done yet) and return their slots.

        Raises RowError while speculative rows are live or for a token outside the vocabulary,
        CapacityError if there is no room.
        """

    def branch(self, tokens: Seq[int], parents: Seq[int] | None = None, root: int | None = None) -> list[int]:
        """Add speculative rows and return their slots.

        ``parents[i]`` is the index *within this call* of row i's parent (less than i), or -1 for
        ``root``; None makes a chain. ``root`` is the slot of the last committed position (the
        default) or of a live speculative row. Raises RowError, CapacityError.
        """

    def prune(self, rows: Seq[int]) -> None:
        """Drop speculative rows and all their descendants. Raises RowError for a slot not live."""

    def commit(self, path: Seq[int]) -> None:
        """Make a path of speculative rows committed, and drop every other speculative row.

        ``path[0]`` must be a child of the last committed position and each next one a child of the
        one before; the cache is compacted so that position p is in slot p again. Rows may still be
        pending at any layer. An empty path drops all speculative rows. Raises RowError.
        """

    def rollback(self, n: int) -> None:
        """Drop the last ``n`` committed positions and all speculative rows. Raises RowError."""

    def keep(self, layers: Seq[int], positions: int) -> None:
        """Keep the hidden states after each of ``layers``, for :meth:`Backend.shadow`.

        ``layers``: 1..num_layers, ascending, each once; none keeps nothing. States are kept of rows whose
        first layer is computed from now on: of speculative rows, of committed ones that are not complete,
        and of the latest ``positions`` complete ones. What was kept before is forgotten, and a rollback
        brings back nothing that was let go. Raises RowError.
        """

    @property
    def kept(self) -> int:
        """How many of the latest complete committed positions, without a gap, have their states kept.

        Pending positions after them do not count and are no gap.
        """

    def kv(self, layer: int, slots: Seq[int]) -> tuple[Floats, Floats]:
        """Keys (after rotation) and values of ``slots`` at ``layer``, each widened to fp32.

        Shapes (len(slots), num_kv_heads, head_dim). For tests and export.
        Raises RowError if a slot has not done that layer.
        """


class DraftHead(Protocol):
    """A head of :meth:`Backend.draft_head`; belongs to the backend that made it."""

    @property
    def bytes(self) -> int:
        """Bytes of weights that one use reads, its adapter's included."""


class FittedColumn(Protocol):
    """What a drafter block has for one sequence: keys and values of positions, made from true states."""

    @property
    def first(self) -> int:
        """The position that the first of them belongs to; 1 or more."""

    @property
    def length(self) -> int:
        """How many positions in a row are there."""


class FittedDrafter(Protocol):
    """A drafter block of :meth:`Backend.drafter`; belongs to the backend that made it."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers of the model whose states it reads: they have to be kept."""

    @property
    def bytes(self) -> int:
        """Bytes of weights that one draft reads, those of the head aside."""

    def column(self, capacity: int, kv_dtype: KVDtype, *, poison: bool = False) -> FittedColumn:
        """An empty column for a sequence of that many slots.

        With ``poison`` whatever drafts leave behind is NaN after each call (for tests). Raises CapacityError,
        OutOfMemoryError.
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


class RankCall(NamedTuple):
    """A row, by its slot, to guess the next token of."""

    sequence: SequenceState
    column: FittedColumn
    slot: int


class FittedExits(Protocol):
    """Predictors of :meth:`Backend.exit_predictors`; belong to the backend that made them."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Those that have one, ascending."""

    @property
    def candidates(self) -> int:
        """Tokens that each row is judged by."""


class ExitRows(Protocol):
    """Rows of :meth:`Backend.exit_rows`, with what predictors saw of them; belong to their backend."""


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


class RoundCall(NamedTuple):
    """A round of one sequence: drafts are verified, and what the full model confirms becomes text.

    ``drafts``, of the same sequence, is drafted first; None takes the speculative rows that are there, if
    any. ``sampling`` draws the text; ``ends`` are tokens after which it is over, and ``remaining`` how many
    it may still be given, 1 or more.
    """

    sequence: SequenceState
    sampling: Sampling
    ends: Collection[int]
    remaining: int
    drafts: ChainCall | TreeCall | None = None


class RoundText(NamedTuple):
    """``tokens`` are text now, and only the last one can be one that ends it.

    The newest row has been through no layer yet, unless the text ended with an accepted draft.

    ``accepted``: slots that accepted drafts were in, one for each of the first tokens. Of the drafts made in
    the call: ``confidences``, and ``depth``, the most of them in a row; their slots followed the text's end.
    """

    tokens: tuple[int, ...]
    accepted: list[int]
    confidences: tuple[float, ...]
    depth: int


class Rounds(NamedTuple):
    """What came of each call, and the seconds spent on drafts, in layers, in the head."""

    texts: list[RoundText]
    draft: float
    layers: float
    head: float


Work = Seq[tuple[SequenceState, Seq[int]]]
"""Rows of several sequences: (sequence, slots) pairs; results are concatenated in this order.

A sequence may appear once only; its slots must be distinct.
"""


class Backend(Protocol):
    """Runs rows through the layers of one model."""

    @property
    def name(self) -> str:
        """``"reference"``, ``"cpu"``, ..."""

    @property
    def config(self) -> ModelConfig:
        """Shape of the model."""

    @property
    def weights(self) -> WeightFormat:
        """How the matrices are stored, which decides what enters a product."""

    def sequence(
        self, capacity: int, kv_dtype: KVDtype | None = None, *, poison: bool = False
    ) -> SequenceState:
        """Reserve a sequence of ``capacity`` slots.

        ``kv_dtype`` defaults to what :data:`specee.types.DEFAULT_KV` has for the weights. With ``poison``
        every unused slot holds NaN, now and after each prune, commit and rollback (for tests).
        Raises CapacityError if ``capacity`` is over the model's context, OutOfMemoryError.
        """

    def advance(self, work: Work, to_layer: int) -> None:
        """Bring the given rows to ``to_layer`` layers done (1..num_layers).

        Rows they attend to that are not there yet (ancestors, pending committed positions) come
        along. Rows already past ``to_layer`` are left alone. Raises RowError.
        """

    def hidden(self, work: Work) -> Floats:
        """Hidden state after each row's last done layer, before the final norm: (rows, hidden_size).

        Kept for every row that is not complete, for every live speculative row, and for the rows
        *named* in their sequence's latest ``advance`` (naming a complete row whose state was let go
        does not bring it back). Raises RowError for any other row, and for a row with no layer done.
        """

    def logits(self, work: Work, head: DraftHead | None = None) -> Floats:
        """Final norm and head on :meth:`hidden`: (rows, vocab_size).

        With a ``head`` of :meth:`draft_head`, its adapter comes first, and tokens outside its vocabulary have
        minus infinity.
        """

    def argmax(self, work: Work) -> Ints:
        """Greedy token of each row, the lowest id among equals: (rows,)."""

    def topk(self, work: Work, k: int) -> tuple[Ints, Floats]:
        """Ids and logits of the k best tokens, best first, lower id first among equals: (rows, k)."""

    def sample(self, work: Work, sampling: Seq[Sampling]) -> Ints:
        """Draw the token *after* each row, with noise at the row's position + 1: (rows,).

        One ``Sampling`` per row. Same function as :func:`specee.sampling.sample` on :meth:`logits`.
        """

    def verify(self, work: Work, sampling: Seq[Sampling] | None) -> tuple[list[int], float, float]:
        """Take rows through all layers, and draw the token after each.

        Returns the tokens (rows,), the seconds spent in layers and those in the head.

        What :meth:`advance` to the last layer and then :meth:`sample` do, or :meth:`argmax` if ``sampling``
        is None, in one call. Raises what those raise.
        """

    def run_rounds(
        self, calls: Seq[RoundCall], drafter: FittedDrafter | None = None, head: DraftHead | None = None
    ) -> Rounds:
        """Whole rounds of several sequences: draft, verify, accept, commit, in one call.

        Drafts are those of :meth:`draft_chains` and :meth:`draft_trees` with ``drafter`` and ``head``, none
        where the state before the newest position is not kept, and none behind a token of ``ends``. All rows
        are then verified as by :meth:`verify`. Of each sequence, a draft stays if it is the token drawn after
        the row before it (Leviathan et al., 2023, coupled as in :mod:`specee.acceptance`), until no draft
        matches or the text ends; these are committed, all others dropped, and the token drawn after the last
        one is appended. Raises what those raise, CapacityError where a text may not find room, RowError for
        an empty text, ``remaining`` under 1, and drafts of another sequence. After an exception drafts may
        be left as speculative rows; no text has grown then.
        """

    def draft(
        self, work: Work, sampling: Seq[Sampling], head: DraftHead | None = None
    ) -> tuple[Ints, Floats]:
        """A draft of the token after each row, and how likely that token is: (rows,) each.

        The token is :meth:`sample`'s, from the row's hidden state at whatever depth it is; its confidence is
        its probability in the softmax of the logits as they are (temperature 1, nothing filtered or
        penalised). Confidences may differ in their last bits between numbers of threads. With a ``head`` of
        :meth:`draft_head`, the state passes its adapter first, and only tokens of its vocabulary have logits.
        """

    def shadow(self, work: Work, layers: Seq[int], head: DraftHead | None = None) -> tuple[Ints, Floats]:
        """What each of ``layers`` would draft after each row: (rows, layers) tokens and confidences.

        A token is the most likely one, the lowest id among equals, by the row's state after that layer, and
        its confidence is as in :meth:`draft`. States are those that :meth:`SequenceState.keep` kept; all of
        them pass the head together. ``head``: as for :meth:`draft`. Raises RowError for a row or a layer that
        is not kept, or a layer that the row has not done.
        """

    def draft_head(
        self,
        adapter: Adapter | None,
        vocabulary: Ints | None,
        stored: DraftFormat | None = None,
        *,
        normed: bool = False,
    ) -> DraftHead:
        """A head for drafts, for use with :meth:`draft`.

        ``vocabulary``: distinct token ids (tokens,), the rows of the model's head to keep; None keeps all.
        ``stored``: blocks that rows are quantised to; None leaves them as they are, and a logit of a kept
        token has the bits it has in the full head. ``adapter``: what the state passes before the final norm,
        None for nothing. ``normed``: states come as the head takes them, as a plain drafter block gives them,
        and pass no final norm. Raises ConfigurationError for ids outside the vocabulary or given twice, and
        for an adapter whose shapes do not fit the model.
        """

    def drafter(self, parts: DrafterParts, stored: DraftFormat = "Q8_0") -> FittedDrafter:
        """A drafter block, its matrices in blocks of that format, whatever the model's are.

        Raises ConfigurationError for parts that do not fit the model.
        """

    def draft_chains(
        self, drafter: FittedDrafter, calls: Seq[ChainCall], head: DraftHead | None = None
    ) -> list[tuple[list[int], list[float]]]:
        """Tokens and confidences of a chain for each sequence, drafted side by side; no rows are added.

        First each column catches up with its sequence, as far back as states are kept: what it has for
        other tokens goes, and where there is a gap it begins anew behind it. Then tokens are drawn one after
        the other, as in :meth:`draft`, from what the block gives for the newest position, and for its own
        drafts. All positions of a sequence but the newest must be complete, the newest not, and the state
        before it kept (:meth:`SequenceState.keep`, the drafter's layers among those kept). Raises
        RowError before anything changes; ConfigurationError for parts of another backend.
        """

    def rank(
        self, drafter: FittedDrafter, calls: Seq[RankCall], k: int, head: DraftHead | None = None
    ) -> list[list[int]]:
        """The k likeliest tokens after each row by the block, likeliest first, lower id first among equals.

        A column catches up with the complete positions of its sequence, as in :meth:`draft_chains`; from
        there the block goes on from what it gave itself, along the path to the row, which is not complete and
        may be committed or speculative. Raises RowError before anything changes where no state is kept before
        the first position that is not complete, where all are complete, and for a k that is not 1 to as many
        tokens as the head has; ConfigurationError for parts of another backend.
        """

    def score(self, work: Work, layers: Seq[int], candidates: Ints) -> Floats:
        """Logits of a few candidates of each row, from kept states: (rows, layers, k), merged scoring.

        ``candidates`` (rows, k) token ids, 1 to 16, distinct in a row. A logit has the bits that it has in
        :meth:`logits`. Only the candidates' rows of the head are read. Raises RowError.
        """

    def exit_predictors(self, parts: ExitParts) -> FittedExits:
        """Predictors for use with :meth:`leave_early`. Raises ConfigurationError if they do not fit."""

    def leave_early(
        self,
        drafter: FittedDrafter,
        predictors: FittedExits,
        calls: Seq[ExitCall],
        head: DraftHead | None = None,
        *,
        confirm: bool,
    ) -> Exits:
        """Take rows through layers until predictors let them go (SpecEE, T1).

        Candidates are :meth:`rank`'s. At each layer that a call names, the predictor sees their logits, their
        softmax and how it changed; rows that want other layers are checked there. Where its chance is above
        the threshold, with ``confirm`` the token is drawn by the whole head, and the row leaves if it is
        among the candidates; a row that never leaves goes through all layers. Without, the row leaves with
        the likeliest candidate (with the noise of its position where sampling has some, penalties aside), and
        one that never leaves stays at the last layer checked. Rows wait where they left; rows before them
        come along as in :meth:`advance`. Raises what :meth:`rank` and :meth:`advance` raise, RowError for
        layers without a predictor or out of order.
        """

    def draft_trees(
        self, drafter: FittedDrafter, calls: Seq[TreeCall], head: DraftHead | None = None
    ) -> list[DraftedTree]:
        """A tree for each sequence, drafted side by side, a depth at a time; no rows are added.

        Columns catch up as in :meth:`rank`, for the newest position. Then, depth by depth, nodes get as
        children the tokens of :func:`specee.sampling.best` after them: the first one is what a chain would
        draft. Children's shares are those of the softmax of the logits as they are; where noise or a penalty
        ranked them, what they have together is shared out by the softmax of their scores. Of the newest
        depth, the likeliest nodes that are among the ``nodes`` likeliest of all so far are taken through the
        block together, as far as the column has slots behind the text. Raises what :meth:`rank` raises, and
        RowError for a limit under 1 and while speculative rows are live.
        """

    def exit_rows(self, predictors: FittedExits, candidates: Seq[Seq[int]]) -> ExitRows:
        """Rows to ask predictors about at one layer after the other, each with candidates of its own.

        As many candidates as the predictors know, distinct, likeliest first. Raises RowError,
        ConfigurationError.
        """

    def ask_exits(self, rows: ExitRows, layer: int, calls: Seq[AskCall]) -> list[Answer]:
        """Ask the predictor of ``layer`` about rows that have done exactly that layer.

        All rows of all calls in one go (SpecEE's grouped scoring), each by its own candidates as in
        :meth:`leave_early`: their logits, their softmax and how it changed since the row was asked about
        before. Tokens are the likeliest candidates, with the noise of their position where sampling has some,
        penalties aside. Answers come in the order of the calls. Raises RowError before anything changes for
        rows at another layer, one that is asked about twice or is none of ``rows``, and a layer without a
        predictor.
        """
