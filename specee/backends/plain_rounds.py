"""Whole rounds from a backend's other verbs, one after the other: what a native version is tested against."""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq
from typing import Protocol

from specee.backends.plain_copies import copied
from specee.backends.protocol import (
    ChainCall,
    DraftedTree,
    DraftHead,
    FittedDrafter,
    RoundCall,
    RoundText,
    RoundTurn,
    SequenceState,
    TreeCall,
    Work,
)
from specee.errors import CapacityError, ConfigurationError, RowError
from specee.types import ModelConfig, Sampling


class Verbs(Protocol):
    """What rounds are made of: see :class:`.Backend`, of which this is a part."""

    @property
    def config(self) -> ModelConfig:
        """See :attr:`.Backend.config`."""

    def verify(self, work: Work, sampling: Seq[Sampling] | None) -> tuple[list[int], float, float]:
        """See :meth:`.Backend.verify`."""

    def draft_chains(
        self, drafter: FittedDrafter, calls: Seq[ChainCall], head: DraftHead | None = None
    ) -> list[tuple[list[int], list[float]]]:
        """See :meth:`.Backend.draft_chains`."""

    def draft_trees(
        self, drafter: FittedDrafter, calls: Seq[TreeCall], head: DraftHead | None = None
    ) -> list[DraftedTree]:
        """See :meth:`.Backend.draft_trees`."""


_Drafts = tuple[list[int], list[int], list[float]]
"""Tokens, parents, and confidences."""


def run_rounds(
    backend: Verbs,
    calls: Seq[RoundCall],
    drafter: FittedDrafter | None = None,
    head: DraftHead | None = None,
    turns: int = 1,
) -> list[RoundTurn]:
    """See :meth:`.Backend.run_rounds`."""
    if turns < 1:
        raise RowError(f"rounds of {turns} turns: give 1 or more")
    done = [_turn(backend, calls, drafter, head)]
    while len(done) < turns:
        pairs = zip(calls, done[-1].texts, strict=True)
        calls = [call._replace(remaining=call.remaining - len(text.tokens)) for call, text in pairs]
        if not all(_goes_on(*pair) for pair in zip(calls, done[-1].texts, strict=True)):
            break
        done.append(_turn(backend, calls, drafter, head))
    return done


def _goes_on(call: RoundCall, text: RoundText) -> bool:
    """Whether there can be another turn that nobody has to be asked for."""
    if text.copied or call.remaining < 1 or text.tokens[-1] in call.ends:
        return False
    wanted = [0] if call.copies is None else [call.copies.length]
    if call.drafts is not None:
        wanted.append(_most(call.drafts))
    return max(wanted) < call.remaining


def _most(drafts: ChainCall | TreeCall) -> int:
    return drafts.length if isinstance(drafts, ChainCall) else drafts.nodes


def _turn(
    backend: Verbs, calls: Seq[RoundCall], drafter: FittedDrafter | None, head: DraftHead | None
) -> RoundTurn:
    for call in calls:
        _check(call)
    _check_distinct(calls)
    copies = [_copied(call) for call in calls]  # a few microseconds, but for a prompt that is learnt
    begin = time.perf_counter()
    blocks = [
        ([], [], []) if copy[0] else _drafted(backend, call, drafter, head)
        for call, copy in zip(calls, copies, strict=True)
    ]
    draft = time.perf_counter() - begin if any(tokens for tokens, _, _ in blocks) else 0.0
    made = [copy if copy[0] else block for copy, block in zip(copies, blocks, strict=True)]
    for call, (tokens, parents, _) in zip(calls, made, strict=True):
        if tokens:
            call.sequence.branch(tokens, parents)
    for call in calls:
        _check_room(call)
    rows = [_rows(call.sequence) for call in calls]
    sampling = [call.sampling for call, own in zip(calls, rows, strict=True) for _ in own]
    greedy = all(one.greedy for one in sampling)
    work = [(call.sequence, own) for call, own in zip(calls, rows, strict=True)]
    after, layers, seconds = backend.verify(work, None if greedy else sampling)
    texts: list[RoundText] = []
    for call, own, copy, (_, parents, shares) in zip(calls, rows, copies, made, strict=True):
        text, accepted = _walk(call, dict(zip(own, after, strict=False)))
        after = after[len(own) :]
        texts.append(RoundText(text, accepted, tuple(shares), _depth(parents), bool(copy[0])))
    for call, given in zip(calls, texts, strict=True):
        call.sequence.commit(given.accepted)
        call.sequence.append(given.tokens[len(given.accepted) :])
    return RoundTurn(texts, draft, layers, seconds)


def _check(call: RoundCall) -> None:
    if call.sequence.length < 1:
        raise RowError("a round of a sequence without a text: append its prompt first")
    if call.remaining < 1:
        raise RowError(
            f"a round of a sequence that may be given {call.remaining} tokens: allowed are 1 or more"
        )
    if call.drafts is not None and call.drafts.sequence is not call.sequence:
        raise RowError("a round drafts for another sequence: give it drafts of its own")
    if call.copies is not None and call.copies.length < 1:
        raise RowError(f"a round with copies of {call.copies.length} tokens: give 1 or more")

    live = len(call.sequence.speculative)
    if live and (call.drafts is not None or call.copies is not None):
        raise RowError(
            f"a round is to draft while {live} speculative rows are live: commit a path (an empty one drops "
            "them all) first"
        )


def _check_distinct(calls: Seq[RoundCall]) -> None:
    indices = [id(call.copies.ngrams) for call in calls if call.copies is not None]
    if len(indices) != len(set(indices)):
        raise RowError("an index of n-grams appears twice in one call: give each sequence one of its own")


def _check_room(call: RoundCall) -> None:
    sequence = call.sequence
    deepest = max((sequence.row(slot).position for slot in sequence.speculative), default=sequence.length - 1)
    most = min(call.remaining, deepest - sequence.length + 2)
    free = sequence.capacity - sequence.length
    if most > free:
        raise CapacityError(
            f"a round may give {most} tokens, and {free} of {sequence.capacity} slots are free: reserve a "
            "longer sequence, or give `remaining` what it has room for"
        )


def _copied(call: RoundCall) -> _Drafts:
    """What the text itself offers."""
    if call.copies is None:
        return [], [], []
    tokens, confidence = copied(call.copies, call.sequence)
    return _cut(tokens, list(range(-1, len(tokens) - 1)), [confidence] * len(tokens), call)


def _drafted(
    backend: Verbs, call: RoundCall, drafter: FittedDrafter | None, head: DraftHead | None
) -> _Drafts:
    """What the block drafts, cut where the text would end."""
    wanted, state = call.drafts, call.sequence
    if wanted is None or not _known(state, backend.config.num_layers):
        return [], [], []
    if drafter is None:
        raise ConfigurationError("a round with drafts needs a drafter: give one")
    if isinstance(wanted, ChainCall):
        [(tokens, confidences)] = backend.draft_chains(drafter, [wanted], head)
        parents = list(range(-1, len(tokens) - 1))
    else:
        assert isinstance(wanted, TreeCall)
        [(tokens, parents, confidences, _)] = backend.draft_trees(drafter, [wanted], head)
    return _cut(tokens, parents, confidences, call)


def _known(state: SequenceState, layers: int) -> bool:
    return state.length > 1 and state.kept > 0 and state.row(state.length - 2).done == layers


def _cut(tokens: list[int], parents: list[int], confidences: list[float], call: RoundCall) -> _Drafts:
    """Without what stands behind a token that ends the text."""
    place = {-1: -1}
    for index, parent in enumerate(parents):
        if parent in place and (parent < 0 or tokens[parent] not in call.ends):
            place[index] = len(place) - 1
    kept = list(place)[1:]
    return [tokens[i] for i in kept], [place[parents[i]] for i in kept], [confidences[i] for i in kept]


def _rows(state: SequenceState) -> list[int]:
    """The newest committed row, and all drafts."""
    return [state.length - 1, *state.speculative]


def _walk(call: RoundCall, after: dict[int, int]) -> tuple[tuple[int, ...], list[int]]:
    """Follow the tokens drawn after the rows, by slot: those that are emitted, and the drafts among them."""
    state, slot = call.sequence, call.sequence.length - 1
    children = {(row.parent, row.token): row.slot for row in map(state.row, state.speculative)}
    tokens: list[int] = []
    accepted: list[int] = []
    while True:
        token = after[slot]
        tokens.append(token)
        child = children.get((slot, token))
        if child is not None:
            accepted.append(child)
        if child is None or token in call.ends or len(tokens) >= call.remaining:
            return tuple(tokens), accepted
        slot = child


def _depth(parents: Seq[int]) -> int:
    """Most drafts in a row."""
    depths: list[int] = []
    for parent in parents:
        depths.append(1 if parent < 0 else depths[parent] + 1)
    return max(depths, default=0)
