"""Rounds of the CUDA backend in one launch each, where a graph of the driver can do what is asked for.

That is plain decoding, and chains of drafts from one exit layer (Elhoushi et al., "LayerSkip", ACL 2024) or a
drafter block: everything that has no say of the host between its first kernel and its last. A graph is
recorded for sequences that come again; whatever else there is to do goes step by step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import NamedTuple, TypeGuard

import torch
from torch import Tensor

from specee.backends.calls import ChainCall, LayerChainCall, RoundCall, RoundDrafts, RoundText, RoundTurn
from specee.backends.cuda_block_chains import book, drafts_of, unseen_by
from specee.backends.cuda_block_round import Unseen
from specee.backends.cuda_draft import CudaDraftHead
from specee.backends.cuda_drafter import CudaDrafter
from specee.backends.cuda_head import WORD, is_plain
from specee.backends.cuda_recorded import KeptRounds, Parts, check_tokens
from specee.backends.cuda_repeats import Graphs
from specee.backends.cuda_round import CudaRound, Shape
from specee.backends.plain_copies import copied
from specee.backends.plain_drafts import Parts as Drafting
from specee.backends.protocol import DraftHead
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.record import ROUND_TOKENS, SequenceOutcome, SequencePlan
from specee.cuda.tiles import MAX_LINEAR_ROWS

_DRAFTS = (0, 1, 2, 4, 8, 15)  # that rounds have room for


class _Wanted(NamedTuple):
    """A round that can be one launch: ``plans`` of sequences, and ``unseen``, what a block lacks of them."""

    sequences: list[ReferenceSequence]
    shape: Shape
    plans: list[SequencePlan]
    unseen: list[Unseen]


class GraphRounds:
    """See the module; rounds are ``kept`` with those of other kinds, and ``taken`` in one launch.

    ``graphs`` says which draft heads and blocks are the backend's.
    """

    def __init__(self, parts: Parts, kept: KeptRounds, graphs: Graphs) -> None:
        self._parts, self._kept, self._graphs = parts, kept, graphs
        self._config, self._bytes_read = parts.config, parts.bytes_read()
        self.taken = 0

    def turn(self, calls: Seq[RoundCall], drafting: Drafting) -> RoundTurn | None:
        """A round of each call, None where it has to be taken step by step; then nothing has changed.

        Raises NumericalError, DeviceError.
        """
        wanted = None if self._kept.reason(Shape) is not None else self._wanted(calls, drafting)
        if wanted is None:
            return None
        sequences, shape, plans, unseen = wanted
        with self._parts.current():
            one = self._round(wanted)
            if one is None:
                return None
            begin = time.perf_counter()
            try:
                _, outcomes, states = one.run(range(self._config.num_layers), plans, unseen)
            except torch.cuda.OutOfMemoryError:  # before anything was launched
                self._kept.drop()
                return None
            seconds = time.perf_counter() - begin
        check_tokens([min(outcome.tokens) for outcome in outcomes])
        self.taken += 1
        if shape.block is not None:
            book(shape.block, unseen)
        each = shape.drafts + 1
        rows = [
            dict(zip(shape.kept, states[:, at * each : (at + 1) * each], strict=True))
            for at in range(len(calls))
        ]
        texts = [_booked(*one) for one in zip(calls, sequences, outcomes, rows, strict=True)]
        return self._timed(texts, shape, max(one.drafted for one in outcomes), seconds)

    def _wanted(self, calls: Seq[RoundCall], drafting: Drafting) -> _Wanted | None:
        """None for what a launch cannot do."""
        if not calls or not all(_is_ready(call, self._config.num_layers) for call in calls):
            return None
        found = [one.sequence for one in calls if isinstance(one.sequence, ReferenceSequence)]
        shape = self._shape(calls, drafting)
        most = min(
            ROUND_TOKENS - 1,
            MAX_LINEAR_ROWS // len(calls) - 2,
            *(one.capacity - one.length - 1 for one in found),
        )
        # A round has all of its rows: few sizes, but where only the very one fits.
        longest = max((call.drafts.length for call in calls if _is_chain(call.drafts)), default=0)
        room = next((count for count in (*_DRAFTS, longest) if longest <= count <= most), None)
        if shape is None or room is None:
            return None
        unseen: list[Unseen] | None = []
        if shape.block is not None:
            chains = [call.drafts for call in calls if isinstance(call.drafts, ChainCall)]
            unseen = unseen_by(shape.block, found, chains)
        kept = sorted({layer for one in found for layer in one.layers_kept})
        if unseen is None:
            return None
        return _Wanted(found, replace(shape, drafts=room, kept=tuple(kept)), list(map(_plan, calls)), unseen)

    def _shape(self, calls: Seq[RoundCall], drafting: Drafting) -> Shape | None:
        """Where drafts come from, without how many there are; None for drafts that a launch cannot make."""
        chains = [call.drafts for call in calls if call.drafts is not None]
        if not chains:
            return Shape()
        layered = [chain for chain in chains if isinstance(chain, LayerChainCall)]
        layers, heads = {chain.layer for chain in layered}, {chain.head for chain in layered}
        if len(layered) == len(chains) and len(layers) == len(heads) == 1:
            layer, head = layers.pop(), heads.pop()
            able = 1 <= layer < self._config.num_layers and self._records(head)
            return Shape(draft_layer=layer, head=_own(head)) if able else None
        blocks = [chain for chain in chains if isinstance(chain, ChainCall)]
        drafter, head = drafting.drafter, drafting.head
        if len(blocks) < len(calls) or not self._records(head):
            return None
        if not isinstance(drafter, CudaDrafter) or drafter.graphs is not self._graphs:
            return None
        block = drafts_of(drafter, blocks)
        return None if block is None else Shape(block=block, head=_own(head))

    def _records(self, head: DraftHead | None) -> bool:
        """Whether a launch can have it: behind an adapter the host looks at states."""
        if head is None:
            return True
        return (
            isinstance(head, CudaDraftHead) and head.repeats.graphs is self._graphs and head.adapter is None
        )

    def _round(self, wanted: _Wanted) -> CudaRound | None:
        """What is recorded for them; nothing the first time, since it may be the only one."""
        sequences, shape = wanted.sequences, wanted.shape
        return self._kept.round(
            sequences, shape, lambda means: CudaRound(self._parts.make(sequences, shape), means)
        )

    def _timed(self, texts: list[RoundText], shape: Shape, drafted: int, seconds: float) -> RoundTurn:
        """A launch has one time: it is shared out by the bytes that its parts read."""
        layer, whole = self._bytes_read
        head = whole if shape.head is None else shape.head.bytes
        by_block = 0 if shape.block is None else shape.block.drafter.bytes + head
        parts = [
            drafted * ((shape.draft_layer or 0) * layer + by_block),
            0 if by_block else drafted * head,
            self._config.num_layers * layer,
            whole,
        ]
        return RoundTurn(texts, *(seconds * part / sum(parts) for part in parts))


def _own(head: DraftHead | None) -> CudaDraftHead | None:
    return head if isinstance(head, CudaDraftHead) else None


def _is_chain(drafts: RoundDrafts | None) -> TypeGuard[LayerChainCall | ChainCall]:
    return isinstance(drafts, LayerChainCall | ChainCall)


def _is_ready(call: RoundCall, layers: int) -> bool:
    """Whether the newest row alone is to be computed, and nobody wants a look at scores."""
    sequence, drafts = call.sequence, call.drafts
    if not isinstance(sequence, ReferenceSequence) or sequence.length < 1 or call.remaining < 1:
        return False
    if sequence.speculative or not is_plain(call.sampling):
        return False
    if drafts is not None and not (
        _is_chain(drafts)
        and drafts.sequence is sequence
        and drafts.length >= 1
        and (drafts.sampling == call.sampling or (drafts.sampling.greedy and call.sampling.greedy))
    ):
        return False
    newest = sequence.find(sequence.length - 1)
    if newest.done or (newest.parent is not None and newest.parent.done < layers):
        return False
    return call.copies is None or not copied(call.copies, sequence)[0]


def _plan(call: RoundCall) -> SequencePlan:
    sampling, newest = call.sampling, call.sequence.row(call.sequence.length - 1)
    chain = call.drafts if _is_chain(call.drafts) else None
    return SequencePlan(
        newest.token,
        newest.position,
        drafts=0 if chain is None else chain.length,
        floor=0.0 if chain is None else chain.stop_below,
        temperature=sampling.temperature,
        seed=sampling.seed & WORD,
    )


def _booked(
    call: RoundCall, sequence: ReferenceSequence, outcome: SequenceOutcome, states: Mapping[int, Tensor]
) -> RoundText:
    """What of it is text, which the sequence knows then; drafts behind one that ends a text were in vain."""
    tokens = _until_end(outcome.tokens, call)[: call.remaining]
    drafts = _until_end(outcome.drafts, call)
    kept = min(outcome.accepted, len(tokens))
    accepted = sequence.complete(tokens[:kept], states)
    sequence.append(tokens[kept:])
    return RoundText(tokens, accepted, outcome.confidences[: len(drafts)], len(drafts), copied=False)


def _until_end(tokens: tuple[int, ...], call: RoundCall) -> tuple[int, ...]:
    end = next((at for at, token in enumerate(tokens) if token in call.ends), len(tokens))
    return tokens[: end + 1]
