"""Rounds of the CUDA backend in one launch each, where a graph of the driver can do what is asked for.

That is plain decoding, and chains of drafts from one exit layer behind greedy texts (Elhoushi et al.,
"LayerSkip", ACL 2024): everything that has no say of the host between its first kernel and its last. A graph
is recorded for sequences that come again; whatever else there is to do goes step by step.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.backends.calls import LayerChainCall, RoundCall, RoundText, RoundTurn
from specee.backends.cuda_head import WORD, is_plain
from specee.backends.cuda_recorded import KeptRounds, Parts, check_tokens
from specee.backends.cuda_round import CudaRound, Shape
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.record import ROUND_TOKENS, SequenceOutcome, SequencePlan
from specee.cuda.tiles import MAX_LINEAR_ROWS

_DRAFTS = (0, 1, 2, 4, 8, 15)  # that rounds have room for


class _Wanted(NamedTuple):
    """A round that can be one launch; ``plans`` of its sequences."""

    sequences: list[ReferenceSequence]
    shape: Shape
    plans: list[SequencePlan]


class GraphRounds:
    """See the module; rounds are ``kept`` with those of other kinds, and ``taken`` in one launch."""

    def __init__(self, parts: Parts, kept: KeptRounds) -> None:
        self._parts, self._kept = parts, kept
        self._config, self._bytes_read = parts.config, parts.bytes_read()
        self.taken = 0

    def turn(self, calls: Seq[RoundCall]) -> RoundTurn | None:
        """A round of each call, None where it has to be taken step by step; then nothing has changed.

        Raises NumericalError, DeviceError.
        """
        wanted = None if self._kept.reason(Shape) is not None else self._wanted(calls)
        if wanted is None:
            return None
        with self._parts.current():
            one = self._round(wanted)
            if one is None:
                return None
            begin = time.perf_counter()
            _, outcomes = one.run(range(self._config.num_layers), wanted.plans)
            seconds = time.perf_counter() - begin
        check_tokens([min(outcome.tokens) for outcome in outcomes])
        self.taken += 1
        texts = [_booked(*one) for one in zip(calls, wanted.sequences, outcomes, strict=True)]
        return self._timed(texts, wanted.shape, max(one.drafted for one in outcomes), seconds)

    def _wanted(self, calls: Seq[RoundCall]) -> _Wanted | None:
        """None for what a launch cannot do."""
        sequences = [call.sequence for call in calls]
        if not calls or not all(_is_ready(call, self._config.num_layers) for call in calls):
            return None
        chains = [call.drafts for call in calls if isinstance(call.drafts, LayerChainCall)]
        layers = {chain.layer for chain in chains}
        if len(layers) > 1 or not layers <= set(range(1, self._config.num_layers)):
            return None
        found = [one for one in sequences if isinstance(one, ReferenceSequence)]
        longest = max((chain.length for chain in chains), default=0)
        # A round has all of its rows: few sizes, but where only the very one fits.
        most = min(
            ROUND_TOKENS - 1,
            MAX_LINEAR_ROWS // len(calls) - 2,
            *(one.capacity - one.length - 1 for one in found),
        )
        room = next((count for count in (*_DRAFTS, longest) if longest <= count <= most), None)
        if room is None:
            return None
        return _Wanted(found, Shape(room, layers.pop() if layers else None), list(map(_plan, calls)))

    def _round(self, wanted: _Wanted) -> CudaRound | None:
        """What is recorded for them; nothing the first time, since it may be the only one."""
        sequences, shape, _ = wanted
        return self._kept.round(
            sequences, shape, lambda means: CudaRound(self._parts.make(sequences, shape), means)
        )

    def _timed(self, texts: list[RoundText], shape: Shape, drafted: int, seconds: float) -> RoundTurn:
        """A launch has one time: it is shared out by the bytes that its parts read."""
        layer, head = self._bytes_read
        parts = [
            drafted * (shape.draft_layer or 0) * layer,
            drafted * head,
            self._config.num_layers * layer,
            head,
        ]
        return RoundTurn(texts, *(seconds * part / sum(parts) for part in parts))


def _is_ready(call: RoundCall, layers: int) -> bool:
    """Whether the newest row alone is to be computed, and nobody wants states or a look at scores."""
    sequence, drafts = call.sequence, call.drafts
    if not isinstance(sequence, ReferenceSequence) or sequence.length < 1 or call.remaining < 1:
        return False
    if call.copies is not None or sequence.speculative or sequence.layers_kept or not is_plain(call.sampling):
        return False
    if drafts is not None and not (
        isinstance(drafts, LayerChainCall)
        and drafts.sequence is sequence
        and drafts.head is None
        and drafts.length >= 1
        and call.sampling.greedy
        and drafts.sampling.greedy
    ):
        return False
    newest = sequence.find(sequence.length - 1)
    return newest.done == 0 and (newest.parent is None or newest.parent.done == layers)


def _plan(call: RoundCall) -> SequencePlan:
    sampling, newest = call.sampling, call.sequence.row(call.sequence.length - 1)
    chain = call.drafts if isinstance(call.drafts, LayerChainCall) else None
    return SequencePlan(
        newest.token,
        newest.position,
        drafts=0 if chain is None else chain.length,
        floor=0.0 if chain is None else chain.stop_below,
        temperature=sampling.temperature,
        seed=sampling.seed & WORD,
    )


def _booked(call: RoundCall, sequence: ReferenceSequence, outcome: SequenceOutcome) -> RoundText:
    """What of it is text, which the sequence knows then; drafts behind one that ends a text were in vain."""
    tokens = _until_end(outcome.tokens, call)[: call.remaining]
    drafts = _until_end(outcome.drafts, call)
    kept = min(outcome.accepted, len(tokens))
    accepted = sequence.complete(tokens[:kept])
    sequence.append(tokens[kept:])
    return RoundText(tokens, accepted, outcome.confidences[: len(drafts)], len(drafts), copied=False)


def _until_end(tokens: tuple[int, ...], call: RoundCall) -> tuple[int, ...]:
    end = next((at for at, token in enumerate(tokens) if token in call.ends), len(tokens))
    return tokens[: end + 1]
