"""A decode round of the CUDA backend as a program: drafts, layers, head and acceptance in one launch.

What is recorded is what :class:`CudaLayers` launches for a pass, over arrays that are the round's alone, and
what a drafter block and its head launch for a row. Its sequences are those of the recording, all of them in
each round; their rows are chains behind the text.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from specee.backends.cuda_block_round import BlockDrafts, BlockPart, Unseen
from specee.backends.cuda_draft import CudaDraftHead
from specee.backends.cuda_layers import CudaLayers, Run
from specee.backends.cuda_weights import CudaWeights
from specee.backends.cuda_workspace import Span, Workspace, cut_inputs
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.acceptance import Accepted, Drafts, Draws, Pieces, accept, target_pieces
from specee.cuda.block_round import draws_of
from specee.cuda.decode import DecodeRound, Model
from specee.cuda.given_record import GIVEN_PLAN, encode_given
from specee.cuda.graph import Means
from specee.cuda.launcher import Launcher
from specee.cuda.products import multiply, norm_rows
from specee.cuda.record import (
    ROUND_PLAN,
    ROUND_RESULT,
    ROUND_TOKENS,
    SequenceOutcome,
    SequencePlan,
)
from specee.cuda.round import (
    ChainRows,
    Drafted,
    RoundState,
    chain_rows,
    give_drafts,
    window_begins,
)
from specee.cuda.rows import copy_rows
from specee.cuda.shares import token_shares
from specee.cuda.tiles import MAX_LINEAR_ROWS, vocab_splits
from specee.errors import CapacityError, ConfigurationError
from specee.types import ModelConfig


@dataclass(frozen=True)
class Shape:
    """What a round has room for.

    ``drafts`` of each sequence, made after ``draft_layer`` layers (Elhoushi et al., "LayerSkip", ACL 2024)
    or ``by_block``, from the model's head or an ``own_head``, or ``given`` to the round. States of rows are
    ``kept`` after these layers, ascending.
    """

    drafts: int = 0
    draft_layer: int | None = None
    by_block: bool = False
    own_head: bool = False
    given: bool = False
    kept: tuple[int, ...] = ()
    WHAT: ClassVar[str] = "a round"


class DraftParts(NamedTuple):
    """The block and the head of a shape that has them."""

    block: BlockDrafts | None = None
    head: CudaDraftHead | None = None

    @property
    def owners(self) -> list[object]:
        """What a round with them is of, beside its sequences."""
        columns = () if self.block is None else self.block.columns
        return [*columns, *([] if self.head is None else [self.head])]


@dataclass(frozen=True)
class Storage:
    """The cache of a sequence, and how many positions it has: a round lives no longer than the sequence."""

    keys: Tensor
    values: Tensor
    capacity: int


class ModelRound:
    """Arrays of a round, and what a model does in it.

    ``each``: rows of a sequence. ``states`` (kept layers, rows, hidden) fp32 of them; ``block``, what a
    drafter block does, and ``given``, the record of drafts that are there. Raises ConfigurationError for more
    rows than a pass has.
    """

    def __init__(
        self,
        config: ModelConfig,
        table: CudaWeights,
        layers: CudaLayers,
        sequences: Seq[ReferenceSequence],
        shape: Shape,
        device: torch.device,
        drafting: DraftParts | None = None,
    ) -> None:
        drafting = drafting or DraftParts()
        _check(config, sequences, shape, drafting)
        self._config, self._layers, self._shape, self._device = config, layers, shape, device
        self.sequences = [Storage(one.keys, one.values, one.capacity) for one in sequences]
        self.each = each = shape.drafts + 1
        count = len(sequences)
        rows = count * each
        self._norm, matrix = table.vector("final_norm"), table.matrix(*table.head_key)
        self._matrix = matrix
        quantised = not isinstance(table.matrix("q", 0), Tensor)
        workspace = Workspace(config, device, quantised=quantised)
        workspace.fit(max(one.capacity for one in self.sequences))
        self._rows, self._newest = workspace.span(0, rows), workspace.span(rows, rows + count)
        self._tails = workspace.tails(MAX_LINEAR_ROWS, 1)  # chains have none
        own = list(enumerate(self.sequences))
        self._runs = [Run(one, workspace.span(i * each, i * each + each)) for i, one in own]
        self._newest_runs = [Run(one, workspace.span(rows + i, rows + i + 1)) for i, one in own]
        self._normed = workspace.inputs(config.hidden_size, quantised=not isinstance(matrix, Tensor))
        self._logits = torch.empty(rows, config.vocab_size, device=device)
        self.state = self._state(count, rows)
        self.given = self._zeros(GIVEN_PLAN.itemsize if shape.given else 0, dtype=torch.uint8)
        self.states = torch.empty(len(shape.kept), rows, config.hidden_size, device=device)
        block = drafting.block
        self.block = None if block is None else BlockPart(block, self.state, shape.drafts, device)
        self._draft_head = None if drafting.head is None else drafting.head.product
        self._accept_arrays(count, rows)

    def model(self) -> Model:
        """For :func:`specee.cuda.decode.decode_round`."""
        shape, block = self._shape, self.block
        return Model(
            layer=self._layer,
            head=self._head,
            enter=self._enter,
            draft=None if shape.drafts == 0 or shape.given else self._draft,
            before_drafts=self._give if shape.given else None if block is None else block.before_drafts,
            behind_draft=None if block is None else block.behind_draft,
        )

    def _give(self, launcher: Launcher) -> None:
        give_drafts(launcher, self.state, self.given)

    def _layer(self, launcher: Launcher, layer: int) -> None:
        self._layers.on(launcher).through(layer, self._rows, self._runs)
        if layer + 1 in self._shape.kept:
            copy_rows(launcher, self._rows.x, self.states[self._shape.kept.index(layer + 1)])

    def _enter(self, launcher: Launcher) -> None:
        self._place(launcher, self._rows, None)

    def _place(self, launcher: Launcher, span: Span, which: Tensor | None) -> None:
        """Rows before their first layer."""
        out = ChainRows(span.tokens, span.positions, span.lengths, span.ends, span.slots)
        chain_rows(launcher, self.state, which, out)
        for window, begins in span.begins.items():
            window_begins(launcher, span.ends, begins, window)
        self._layers.on(launcher).enter(span, self._tails[: len(span.ends)])

    def _draft(self, launcher: Launcher) -> Drafted:
        """What the head makes of what drafts follow from, drawn as the text is."""
        count = len(self.sequences)
        x = self._draft_states(launcher) if self.block is None else self.block.x
        logits = self._logits[:count]
        if self._draft_head is None:
            self._head_logits(launcher, x)
        else:
            self._draft_head.launch(launcher, x, self._norm, logits)
        draws_of(launcher, self.state.newest, self.state.draws, self._draft_draws)
        pieces = Pieces(self._pieces.scores[:count], self._pieces.tokens[:count])
        target_pieces(launcher, logits, self._draft_draws, pieces)
        accept(launcher, pieces, self._alone, self._drafted)
        token_shares(launcher, logits, self._drafted.targets, self._shares)
        return Drafted(self._drafted.targets, self._shares)

    def _draft_states(self, launcher: Launcher) -> Tensor:
        """Each sequence's newest row through the first layers."""
        span, layers = self._newest, self._layers.on(launcher)
        self._place(launcher, span, self.state.newest)
        for layer in range(self._shape.draft_layer or 0):
            layers.through(layer, span, self._newest_runs)
        return span.x

    def _head(self, launcher: Launcher) -> Accepted:
        logits = self._head_logits(launcher, self._rows.x)
        target_pieces(launcher, logits, self.state.draws, self._pieces)
        accept(launcher, self._pieces, self._chains, self._accepted)
        return self._accepted

    def _head_logits(self, launcher: Launcher, x: Tensor) -> Tensor:
        normed = cut_inputs(self._normed, 0, len(x))
        norm_rows(launcher, x, self._norm, normed, eps=self._config.norm_eps)
        multiply(launcher, normed, self._matrix, self._logits[: len(x)])
        return self._logits[: len(x)]

    def _state(self, count: int, rows: int) -> RoundState:
        layers = self._config.num_layers
        return RoundState(
            plan=self._zeros(ROUND_PLAN.itemsize, dtype=torch.uint8),
            result=self._zeros(ROUND_RESULT.itemsize, dtype=torch.uint8),
            runs=self._zeros(layers),
            drafts=self._zeros(1),
            tokens=self._zeros(rows),
            draws=self._draws(rows),
            newest=self._zeros(count),
        )

    def _draws(self, rows: int) -> Draws:
        return Draws(
            self._zeros(rows, dtype=torch.float64),
            self._zeros(rows, dtype=torch.int64),
            self._zeros(rows, dtype=torch.int64),
        )

    def _accept_arrays(self, count: int, rows: int) -> None:
        pieces = vocab_splits(self._config.vocab_size)
        self._pieces = Pieces(self._zeros(rows, pieces, dtype=torch.float64), self._zeros(rows, pieces))
        self._accepted = self._written(rows, count)
        parents = torch.arange(rows, dtype=torch.int32, device=self._device) - 1
        self._chains = Drafts(self.state.tokens, parents, self._firsts(rows, rows // count))
        # A draft is the target of a row that is alone.
        self._draft_draws, self._shares = self._draws(count), self._zeros(count, dtype=torch.float32)
        none = self._zeros(count) - 1
        self._alone, self._drafted = Drafts(none, none, self._firsts(count, 1)), self._written(count, count)

    def _written(self, rows: int, count: int) -> Accepted:
        return Accepted(*(self._zeros(size) for size in (rows, rows, count, count)))

    def _firsts(self, rows: int, each: int) -> Tensor:
        return torch.arange(0, rows + 1, each, dtype=torch.int32, device=self._device)

    def _zeros(self, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self._device)


class CudaRound:
    """Rounds of some sequences of a backend, in one launch each where the driver has conditional nodes.

    ``how`` and ``reason``: as of :class:`specee.cuda.graph.Round`, which says what is raised; ``states`` as
    of :class:`ModelRound`, of the latest run.
    """

    def __init__(self, parts: ModelRound, means: Means) -> None:
        self._parts, self.states = parts, parts.states
        self._round = DecodeRound(parts.state, parts.model(), means)
        self.how, self.reason = self._round.how, self._round.reason

    def run(
        self,
        layers: Iterable[int],
        plans: Seq[SequencePlan],
        unseen: Seq[Unseen] = (),
        given: Seq[Seq[int]] = (),
    ) -> tuple[int, tuple[SequenceOutcome, ...]]:
        """How many layers ran, and what came of each sequence (:class:`specee.cuda.decode.DecodeRound`).

        Keys and values of all rows are stored; rows of sequences are for the caller to book. ``unseen``: what
        the block has not seen of each text, in rounds with one; ``given``: drafts, in rounds that get some.
        Raises ConfigurationError unless there is a plan for each sequence, and text or drafts where they are
        wanted; CapacityError where one has no room for as many drafts as the round may make, and DeviceError.
        """
        self._check(plans, unseen, given)
        parts, records = self._parts, list[tuple[Tensor, bytes]]()
        if parts.block is not None:
            records.append(parts.block.put(unseen))
        if len(parts.given):
            records.append((parts.given, encode_given(given)))
        return self._round.run(layers, plans, records)

    def _check(self, plans: Seq[SequencePlan], unseen: Seq[Unseen], given: Seq[Seq[int]]) -> None:
        sequences, each = self._parts.sequences, self._parts.each
        if len(plans) != len(sequences):
            raise ConfigurationError(f"{len(plans)} plans for {len(sequences)} sequences: give one for each")
        if len(unseen) != (0 if self._parts.block is None else len(sequences)):
            raise ConfigurationError(
                f"text of {len(unseen)} sequences for a block, in a round of {len(sequences)}: give what it "
                "has not seen of each where it drafts, and nothing where none does"
            )
        longest = max(map(len, given), default=0)
        if len(given) != (len(sequences) if len(self._parts.given) else 0) or longest >= each:
            raise ConfigurationError(
                f"drafts of {len(given)} sequences, {longest} at most, for a round of {len(sequences)}: give "
                f"up to {each - 1} of each where it gets some, and nothing where it does not"
            )
        for plan, sequence in zip(plans, sequences, strict=True):
            if not 0 <= plan.position <= sequence.capacity - each:
                raise CapacityError(
                    f"a round of {each} rows from position {plan.position} on, in a sequence of "
                    f"{sequence.capacity}: allowed are positions up to {sequence.capacity - each}"
                )


def _check(
    config: ModelConfig, sequences: Seq[ReferenceSequence], shape: Shape, drafting: DraftParts
) -> None:
    rows = len(sequences) * (shape.drafts + 2)  # and one more of each while drafts are made
    if not 0 <= shape.drafts < ROUND_TOKENS or not 0 < rows <= MAX_LINEAR_ROWS:
        raise ConfigurationError(
            f"{len(sequences)} sequences with {shape.drafts} drafts each: allowed are 0..{ROUND_TOKENS - 1} "
            f"drafts, and {MAX_LINEAR_ROWS} rows, two of each sequence and one for each draft"
        )
    layer, last = shape.draft_layer, config.num_layers - 1
    ways = [layer is not None, shape.by_block, shape.given]
    if sum(ways) != (0 if shape.drafts == 0 else 1) or (layer is not None and not 1 <= layer <= last):
        raise ConfigurationError(
            f"{shape.drafts} drafts after {layer} layers{' and by a block' if shape.by_block else ''}"
            f"{' and given' if shape.given else ''}: allowed are 1..{last} layers, a block or given ones "
            "where there are drafts, and none of these where there are none"
        )
    given = (drafting.block is not None, drafting.head is not None)
    if given != (shape.by_block, shape.own_head):
        raise ConfigurationError(
            f"a block and a head of its own are given: {given}, and the shape has them: "
            f"{(shape.by_block, shape.own_head)}; give what it has"
        )
