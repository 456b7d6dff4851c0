"""Rounds of the CUDA backend in one launch each, where a graph of the driver can do what is asked for.

That is plain decoding, copies of the text, and chains of drafts from one exit layer (Elhoushi et al.,
"LayerSkip", ACL 2024) or a drafter block: everything that has no say of the host between its first kernel
and its last (:mod:`specee.backends.cuda_wanted`). A graph is recorded for sequences that come again; whatever
else there is to do goes step by step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple

from torch import Tensor

from specee.backends.calls import RoundCall, RoundText, RoundTurn
from specee.backends.cuda_block_chains import book, unseen_by
from specee.backends.cuda_block_round import Unseen, longest_unseen
from specee.backends.cuda_head import WORD
from specee.backends.cuda_recorded import KeptRounds, Parts, check_tokens
from specee.backends.cuda_repeats import Graphs
from specee.backends.cuda_round import CudaRound, Shape
from specee.backends.cuda_wanted import Wanted, Wants, chain_of, chains_of, until_end
from specee.backends.plain_drafts import Parts as Drafting
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.record import SequenceOutcome, SequencePlan


class GraphRounds:
    """See the module; rounds are ``kept`` with those of other kinds, and ``taken`` in one launch.

    ``graphs`` says which draft heads and blocks are the backend's.
    """

    def __init__(self, parts: Parts, kept: KeptRounds, graphs: Graphs) -> None:
        self._parts, self._kept = parts, kept
        self._config, self._bytes_read = parts.config, parts.bytes_read()
        self._wants = Wants(parts.config, graphs)
        self.taken = 0

    def turn(self, calls: Seq[RoundCall], drafting: Drafting) -> RoundTurn | None:
        """A round of each call, None where it has to be taken step by step.

        Then nothing has changed but what steps change too: columns have lost what is not in their text any
        more, and indices of copies have learnt theirs. Raises NumericalError, DeviceError, and
        OutOfMemoryError where there is no room for states; nothing is booked then.
        """
        wanted = None if self._kept.reason(Shape) is not None else self._wants.of(calls, drafting)
        if wanted is None:
            return None
        shape, block = wanted.shape, wanted.drafting.block
        with self._parts.current():
            unseen = _unseen(calls, wanted)
            one = None if unseen is None else self._round(wanted)
            if one is None or unseen is None:
                return None
            plans = [_plan(call, given=shape.given) for call in calls]
            begin = time.perf_counter()
            _, outcomes = one.run(range(self._config.num_layers), plans, unseen, wanted.given)
            seconds = time.perf_counter() - begin
            check_tokens([-1 if outcome.undrawn else min(outcome.tokens) for outcome in outcomes])
            said = [_said(*own) for own in zip(calls, outcomes, wanted.chances, strict=True)]
            begins = range(0, len(said) * (shape.drafts + 1), shape.drafts + 1)
            rows = [range(at, at + 1 + text.kept) for at, text in zip(begins, said, strict=True)]
            states = self._kept.copies(one.states, rows)
        self.taken += 1
        if block is not None:
            book(block, unseen)
        texts = [
            text.booked(sequence, dict(zip(shape.kept, own, strict=True)))
            for text, sequence, own in zip(said, wanted.sequences, states, strict=True)
        ]
        return self._timed(texts, wanted, max(one.drafted for one in outcomes), seconds)

    def _round(self, wanted: Wanted) -> CudaRound | None:
        """What is recorded for them; nothing the first time, since it may be the only one."""
        parts = (wanted.sequences, wanted.shape, wanted.drafting)
        return self._kept.round(
            wanted.sequences,
            wanted.shape,
            lambda means: CudaRound(self._parts.make(*parts), means),
            wanted.drafting.owners,
        )

    def _timed(self, texts: list[RoundText], wanted: Wanted, drafted: int, seconds: float) -> RoundTurn:
        """A launch has one time: it is shared out by the bytes that its parts read."""
        layer, whole = self._bytes_read
        block, own = wanted.drafting
        head = whole if own is None else own.bytes
        by_block = 0 if block is None else block.drafter.bytes + head
        drafted = 0 if wanted.shape.given else drafted
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
    copied: bool

    def booked(self, sequence: ReferenceSequence, states: Mapping[int, Tensor]) -> RoundText:
        """What the sequence knows then; ``states`` (rows, hidden) of rows that are complete by it."""
        accepted = sequence.complete(self.tokens[: self.kept], states)
        sequence.append(self.tokens[self.kept :])
        return RoundText(self.tokens, accepted, self.confidences, len(self.confidences), self.copied)


def _said(call: RoundCall, outcome: SequenceOutcome, chance: float | None) -> _Said:
    """Drafts behind one that ends a text were in vain; copies have all the same ``chance``."""
    tokens = until_end(outcome.tokens, call)[: call.remaining]
    drafts = until_end(outcome.drafts, call)
    confidences = outcome.confidences[: len(drafts)] if chance is None else (chance,) * len(drafts)
    copied = chance is not None and len(drafts) > 0
    return _Said(tokens, min(outcome.accepted, len(tokens)), confidences, copied)


def _unseen(calls: Seq[RoundCall], wanted: Wanted) -> list[Unseen] | None:
    """What the block has not seen, None where that is too much for a round, or not to be had."""
    block = wanted.drafting.block
    if block is None:
        return []
    most = longest_unseen(len(calls), wanted.shape.drafts)
    return unseen_by(block, wanted.sequences, chains_of(calls), most)


def _plan(call: RoundCall, *, given: bool) -> SequencePlan:
    """Without drafts of its own in a round that gets some."""
    sampling, newest = call.sampling, call.sequence.row(call.sequence.length - 1)
    chain = None if given else chain_of(call)
    return SequencePlan(
        newest.token,
        newest.position,
        drafts=0 if chain is None else chain.length,
        floor=0.0 if chain is None else chain.stop_below,
        temperature=sampling.temperature,
        seed=sampling.seed & WORD,
    )
