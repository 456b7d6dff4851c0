"""Whole rounds from a backend's other verbs, one after the other: what a native version is tested against."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

from specee.backends.plain_drafts import Drafting, Parts, Verbs
from specee.backends.protocol import (
    DraftHead,
    FittedDrafter,
    FittedExits,
    RoundCall,
    RoundDrafts,
    RoundText,
    RoundTurn,
    SequenceState,
    TreeCall,
)
from specee.errors import CapacityError, RowError

Whole = Callable[[Seq[RoundCall], Parts], RoundTurn | None]
"""Makes a turn in one piece of calls that are checked, or None."""


def run_rounds(
    backend: Verbs,
    calls: Seq[RoundCall],
    drafter: FittedDrafter | None = None,
    head: DraftHead | None = None,
    turns: int = 1,
    exits: FittedExits | None = None,
    whole: Whole = lambda *_: None,
) -> list[RoundTurn]:
    """See :meth:`.Backend.run_rounds`. ``whole`` makes those turns that it can, and None of others."""
    if turns < 1:
        raise RowError(f"rounds of {turns} turns: give 1 or more")
    parts = Parts(drafter, head, exits)
    done = [_turn(backend, calls, parts, whole)]
    while len(done) < turns:
        pairs = zip(calls, done[-1].texts, strict=True)
        calls = [call._replace(remaining=call.remaining - len(text.tokens)) for call, text in pairs]
        if not all(_goes_on(*pair) for pair in zip(calls, done[-1].texts, strict=True)):
            break
        done.append(_turn(backend, calls, parts, whole))
    return done


def _goes_on(call: RoundCall, text: RoundText) -> bool:
    """Whether there can be another turn that nobody has to be asked for."""
    if text.copied or call.remaining < 1 or text.tokens[-1] in call.ends:
        return False
    wanted = [0] if call.copies is None else [call.copies.length]
    if call.drafts is not None:
        wanted.append(_most(call.drafts))
    return max(wanted) < call.remaining


def _most(drafts: RoundDrafts) -> int:
    return drafts.nodes if isinstance(drafts, TreeCall) else drafts.length


def _turn(backend: Verbs, calls: Seq[RoundCall], parts: Parts, whole: Whole) -> RoundTurn:
    for call in calls:
        _check(call)
    _check_distinct(calls)
    drafted = Drafting(backend, calls, parts)
    found = whole(calls, parts)
    if found is not None:
        return found
    drafted.run()
    for call in calls:
        _check_room(call)
    rows = [_rows(call.sequence) for call in calls]
    sampling = [call.sampling for call, own in zip(calls, rows, strict=True) for _ in own]
    greedy = all(one.greedy for one in sampling)
    work = [(call.sequence, own) for call, own in zip(calls, rows, strict=True)]
    after, layers, seconds = backend.verify(work, None if greedy else sampling)
    texts: list[RoundText] = []
    for call, own, made in zip(calls, rows, drafted.made, strict=True):
        text, accepted = _walk(call, dict(zip(own, after, strict=False)))
        after = after[len(own) :]
        shares, exits = tuple(made.confidences), tuple(made.exits)
        texts.append(RoundText(text, accepted, shares, _depth(made.parents), made.copied, exits))
    for call, given in zip(calls, texts, strict=True):
        call.sequence.commit(given.accepted)
        call.sequence.append(given.tokens[len(given.accepted) :])
    return RoundTurn(texts, drafted.draft, drafted.draft_head, layers, seconds)


def _check(call: RoundCall) -> None:
    if call.sequence.length < 1:
        raise RowError("a round of a sequence without a text: append its prompt first")
    if call.remaining < 1:
        raise RowError(
            f"a round of a sequence that may be given {call.remaining} tokens: allowed are 1 or more"
        )
    if call.drafts is not None and call.drafts.sequence is not call.sequence:
        raise RowError("a round drafts for another sequence: give it drafts of its own")
    if call.drafts is not None and _most(call.drafts) < 1:
        raise RowError(f"a round of {_most(call.drafts)} drafts: give 1 or more")
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
