"""Rounds of the CUDA backend in one launch each, where a graph of the driver can do what is asked for.

That is plain decoding, and chains of drafts from one exit layer (Elhoushi et al., "LayerSkip", ACL 2024) or a
drafter block: everything that has no say of the host between its first kernel and its last. A graph is
recorded for sequences that come again; whatever else there is to do goes step by step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple, TypeGuard

from torch import Tensor

from specee.backends.calls import ChainCall, LayerChainCall, RoundCall, RoundDrafts, RoundText, RoundTurn
from specee.backends.cuda_block_chains import book, drafts_of, unseen_by
from specee.backends.cuda_block_round import BlockDrafts, Unseen, longest_unseen
from specee.backends.cuda_draft import CudaDraftHead
from specee.backends.cuda_drafter import CudaDrafter
from specee.backends.cuda_head import WORD, is_plain
from specee.backends.cuda_recorded import KeptRounds, Parts, check_tokens
from specee.backends.cuda_repeats import Graphs
from specee.backends.cuda_round import CudaRound, DraftParts, Shape
from specee.backends.plain_copies import copied
from specee.backends.plain_drafts import Parts as Drafting
from specee.backends.protocol import DraftHead
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.record import ROUND_TOKENS, SequenceOutcome, SequencePlan
from specee.cuda.tiles import MAX_LINEAR_ROWS

_DRAFTS = (0, 1, 2, 4, 8, 15)  # that rounds have room for


class _Wanted(NamedTuple):
    """A round that can be one launch."""

    sequences: list[ReferenceSequence]
    shape: Shape
    drafting: DraftParts


class GraphRounds:
    """See the module; rounds are ``kept`` with those of other kinds, and ``taken`` in one launch.

    ``graphs`` says which draft heads and blocks are the backend's.
    """

    def __init__(self, parts: Parts, kept: KeptRounds, graphs: Graphs) -> None:
        self._parts, self._kept, self._graphs = parts, kept, graphs
        self._config, self._bytes_read = parts.config, parts.bytes_read()
        self.taken = 0

    def turn(self, calls: Seq[RoundCall], given: Drafting) -> RoundTurn | None:
        """A round of each call, None where it has to be taken step by step.

        Then nothing has changed but what steps change too: columns have lost what is not in their text any
        more, and indices of copies have learnt theirs. Raises NumericalError, DeviceError, and
        OutOfMemoryError where there is no room for states; nothing is booked then.
        """
        wanted = None if self._kept.reason(Shape) is not None else self._wanted(calls, given)
        if wanted is None:
            return None
        sequences, shape, drafting = wanted
        with self._parts.current():
            one = self._round(wanted)
            unseen = None if one is None else _unseen(calls, wanted)
            if one is None or unseen is None:
                return None
            begin = time.perf_counter()
            _, outcomes = one.run(range(self._config.num_layers), list(map(_plan, calls)), unseen)
            seconds = time.perf_counter() - begin
            check_tokens([-1 if outcome.undrawn else min(outcome.tokens) for outcome in outcomes])
            said = [_said(*one) for one in zip(calls, outcomes, strict=True)]
            begins = range(0, len(said) * (shape.drafts + 1), shape.drafts + 1)
            rows = [range(at, at + 1 + text.kept) for at, text in zip(begins, said, strict=True)]
            states = self._kept.copies(one.states, rows)
        self.taken += 1
        if drafting.block is not None:
            book(drafting.block, unseen)
        texts = [
            text.booked(sequence, dict(zip(shape.kept, own, strict=True)))
            for text, sequence, own in zip(said, sequences, states, strict=True)
        ]
        return self._timed(texts, wanted, max(one.drafted for one in outcomes), seconds)

    def _wanted(self, calls: Seq[RoundCall], given: Drafting) -> _Wanted | None:
        """None for what a launch cannot do."""
        indices = [id(call.copies.ngrams) for call in calls if call.copies is not None]
        if not calls or len(indices) > len(set(indices)):
            return None
        if not all(_is_ready(call, self._config.num_layers) for call in calls):
            return None
        found = [one.sequence for one in calls if isinstance(one.sequence, ReferenceSequence)]
        kept = tuple(sorted({layer for one in found for layer in one.layers_kept}))
        room, layer = self._room(calls, found), None
        drafting: DraftParts | None = DraftParts()
        chains = [call.drafts for call in calls if call.drafts is not None]
        layered = [chain for chain in chains if isinstance(chain, LayerChainCall)]
        if len(layered) < len(chains):
            drafting = self._by_block(calls, given)
        elif layered:
            layer, drafting = self._by_layers(layered)
        if room is None or drafting is None:
            return None
        by_block, own_head = drafting.block is not None, drafting.head is not None
        return _Wanted(found, Shape(room, layer, by_block, own_head, kept), drafting)

    def _room(self, calls: Seq[RoundCall], sequences: Seq[ReferenceSequence]) -> int | None:
        """For how many drafts of each sequence; a round has all of its rows."""
        most = min(
            ROUND_TOKENS - 1,
            MAX_LINEAR_ROWS // len(calls) - 2,
            *(one.capacity - one.length - 1 for one in sequences),
        )
        # Few sizes, but where only the very one fits.
        longest = max((call.drafts.length for call in calls if _is_chain(call.drafts)), default=0)
        return next((count for count in (*_DRAFTS, longest) if longest <= count <= most), None)

    def _by_layers(self, chains: Seq[LayerChainCall]) -> tuple[int | None, DraftParts | None]:
        """Their exit layer and head; no parts where these differ, or are none that a launch can have."""
        layers, heads = {chain.layer for chain in chains}, {chain.head for chain in chains}
        if len(layers) > 1 or len(heads) > 1:
            return None, None
        [layer], [head] = layers, heads
        able = 1 <= layer < self._config.num_layers
        return layer, self._parts_with(None, head) if able else None

    def _by_block(self, calls: Seq[RoundCall], given: Drafting) -> DraftParts | None:
        """The block and its head, where it is to draft for all; None for those that a launch cannot have."""
        chains, drafter = _chains(calls), given.drafter
        if len(chains) < len(calls) or not isinstance(drafter, CudaDrafter):
            return None
        block = drafts_of(drafter, chains) if drafter.graphs is self._graphs else None
        return None if block is None else self._parts_with(block, given.head)

    def _parts_with(self, block: BlockDrafts | None, head: DraftHead | None) -> DraftParts | None:
        """None for a head that a launch cannot have: behind an adapter the host looks at states."""
        if head is None:
            return DraftParts(block)
        own = isinstance(head, CudaDraftHead) and head.repeats.graphs is self._graphs
        if not own or not isinstance(head, CudaDraftHead) or head.adapter is not None:
            return None
        return DraftParts(block, head)

    def _round(self, wanted: _Wanted) -> CudaRound | None:
        """What is recorded for them; nothing the first time, since it may be the only one."""
        sequences, shape, drafting = wanted
        return self._kept.round(
            [*sequences, *drafting.owners],
            shape,
            lambda means: CudaRound(self._parts.make(sequences, shape, drafting), means),
        )

    def _timed(self, texts: list[RoundText], wanted: _Wanted, drafted: int, seconds: float) -> RoundTurn:
        """A launch has one time: it is shared out by the bytes that its parts read."""
        layer, whole = self._bytes_read
        block, own = wanted.drafting
        head = whole if own is None else own.bytes
        by_block = 0 if block is None else block.drafter.bytes + head
        parts = [
            drafted * ((wanted.shape.draft_layer or 0) * layer + by_block),
            0 if by_block else drafted * head,
            self._config.num_layers * layer,
            whole,
        ]
        return RoundTurn(texts, *(seconds * part / sum(parts) for part in parts))


class _Said(NamedTuple):
    """What is text of a round, of which so many are drafts that were ``kept``; and all drafts."""

    tokens: tuple[int, ...]
    kept: int
    confidences: tuple[float, ...]

    def booked(self, sequence: ReferenceSequence, states: Mapping[int, Tensor]) -> RoundText:
        """What the sequence knows then; ``states`` (rows, hidden) of rows that are complete by it."""
        accepted = sequence.complete(self.tokens[: self.kept], states)
        sequence.append(self.tokens[self.kept :])
        return RoundText(self.tokens, accepted, self.confidences, len(self.confidences), copied=False)


def _said(call: RoundCall, outcome: SequenceOutcome) -> _Said:
    """Drafts behind one that ends a text were in vain."""
    tokens = _until_end(outcome.tokens, call)[: call.remaining]
    drafts = _until_end(outcome.drafts, call)
    return _Said(tokens, min(outcome.accepted, len(tokens)), outcome.confidences[: len(drafts)])


def _unseen(calls: Seq[RoundCall], wanted: _Wanted) -> list[Unseen] | None:
    """What the block has not seen, None where that is too much for a round, or not to be had."""
    block = wanted.drafting.block
    if block is None:
        return []
    most = longest_unseen(len(calls), wanted.shape.drafts)
    return unseen_by(block, wanted.sequences, _chains(calls), most)


def _chains(calls: Seq[RoundCall]) -> list[ChainCall]:
    return [call.drafts for call in calls if isinstance(call.drafts, ChainCall)]


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
    return call.copies is None or (call.copies.length >= 1 and not copied(call.copies, sequence)[0])


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


def _until_end(tokens: tuple[int, ...], call: RoundCall) -> tuple[int, ...]:
    end = next((at for at, token in enumerate(tokens) if token in call.ends), len(tokens))
    return tokens[: end + 1]
