"""What every backend offers: sequences of rows, and verbs that move rows through layers.

A *row* is one token at one position. Rows are named by their cache slot: the committed position p
lives in slot p, speculative rows live in slots at or past the committed length. For one sequence
``frontier[l]`` counts the committed positions whose layer ``l`` is done; it never grows with depth.

Row results do not depend on the rows beside them, on the number of threads, or on how a prompt is
cut into calls (same backend, same instruction set, same build): hidden states, cache entries and
logits are identical to the bit. An accepted branch of a tree has the very bits of a plain chain.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Literal, Protocol, TypeAlias

from specee.backends.calls import (
    Answer,
    AskCall,
    ChainCall,
    CopyCall,
    DraftedTree,
    Exit,
    ExitCall,
    ExitChainCall,
    Exits,
    LayerChainCall,
    RankCall,
    RoundCall,
    RoundDrafts,
    RoundText,
    RoundTurn,
    TreeCall,
    Work,
)
from specee.backends.handles import (
    CopyIndex,
    DraftHead,
    ExitRows,
    FittedColumn,
    FittedDrafter,
    FittedExits,
    Floats,
    Ints,
    SequenceState,
)
from specee.models.drafter_parts import DrafterParts
from specee.models.exit_parts import ExitParts
from specee.models.speculator import Adapter
from specee.types import KVDtype, ModelConfig, Sampling, WeightFormat

__all__ = [
    "Answer",
    "AskCall",
    "Backend",
    "ChainCall",
    "CopyCall",
    "CopyIndex",
    "DraftFormat",
    "DraftHead",
    "DraftedTree",
    "Exit",
    "ExitCall",
    "ExitChainCall",
    "ExitRows",
    "Exits",
    "FittedColumn",
    "FittedDrafter",
    "FittedExits",
    "Floats",
    "Ints",
    "LayerChainCall",
    "RankCall",
    "RoundCall",
    "RoundDrafts",
    "RoundText",
    "RoundTurn",
    "SequenceState",
    "TreeCall",
    "Work",
]

DraftFormat: TypeAlias = Literal["Q8_0", "Q4_1"]
"""Blocks of 32 weights of 8 or 4 bits: a coarser draft comes sooner, and is right a little less often."""


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
        self,
        calls: Seq[RoundCall],
        drafter: FittedDrafter | None = None,
        head: DraftHead | None = None,
        turns: int = 1,
        exits: FittedExits | None = None,
    ) -> list[RoundTurn]:
        """Whole rounds of several sequences: draft, verify, accept, commit, all of it up to ``turns`` times.

        Drafts are copies of the text, or those of :meth:`draft_chains` and :meth:`draft_trees` with
        ``drafter`` and ``head`` where the state before the newest position is kept, or chains of rows: behind
        a shallow layer, each with a token of :meth:`draft`, or, where a state before the first position that
        is not complete is kept, each as far as :meth:`leave_early` takes it with ``drafter``, ``head`` and
        ``exits``, as long as it leaves. None are behind a token of ``ends``. All rows are then verified as by
        :meth:`verify`. Of each sequence, a draft stays
        if it is the token drawn after the row before it (Leviathan et al., 2023, coupled as in
        :mod:`specee.acceptance`), until no draft matches or the text ends; these are committed, all others
        dropped, and the token drawn after the last one is appended.

        Hidden states of rows that it has completed need not stay readable.

        There are fewer turns where there is something to be decided: after one that ended a text or copied,
        and where what is to be drafted next has as many tokens as may still be given. Raises what those
        verbs raise, CapacityError where a text may not find room, RowError for an empty text, ``remaining``,
        ``turns`` or a draft's length under 1, drafts of another sequence or beside speculative rows, and an
        index that appears twice; ConfigurationError for what another backend made, and for drafts without
        what they need. After an exception drafts may be left as speculative rows, and what earlier turns gave
        is text.
        """

    def copies(self, longest: int, shortest: int) -> CopyIndex:
        """An index of a text's n-grams, for :class:`CopyCall`: it learns from the sequence it is used with.

        A text that does not go on from what it knows is learnt anew: one that is shorter, or has another
        token at the last place that was known.

        The longest suffix of the text of ``longest`` to ``shortest`` tokens that occurred before is looked up
        (Saxena, "Prompt lookup decoding", 2023). Raises RowError for no tokens, or less than the shortest.
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
