"""Whole rounds in one call: the text of plain decoding, and what the other verbs give one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import get_args

import numpy as np
import pytest

from specee.backends.plain_copies import CopiedText
from specee.backends.protocol import (
    CopyCall,
    RoundCall,
    RoundDrafts,
    RoundText,
    RoundTurn,
)
from specee.errors import RowError
from specee.types import Sampling
from tests.engines import Engine, all_engines, native_engines
from tests.exactness.round_world import (
    MOST,
    VOCAB,
    Text,
    a_call,
    begun,
    go_on,
    new_state,
    plainly,
    remaining,
    seen,
    world,
)


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize("engine", native_engines())
def test_a_native_round_is_its_verbs_one_by_one(engine: Engine, kind: str) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    here = world(engine, kind)
    copied = left = longest = 0
    kinds: Counter[str] = Counter()  # drafts and accepted ones
    for turn in range(80):
        if turn >= 8 and right_and_wrong(kinds):
            break
        native, plain = (
            begun(here, np.random.default_rng([seed, turn]), 3, index) for index in (None, CopiedText)
        )
        rngs = [np.random.default_rng([seed, turn, 1]) for _ in range(2)]
        for _ in range(8):
            open_texts = [pair for pair in zip(native, plain, strict=True) if remaining(pair[0])]
            if not open_texts:
                break
            calls = [a_call(here, text, rngs[0]) for text, _ in open_texts]
            others = [a_call(here, text, rngs[1]) for _, text in open_texts]
            turns, _ = (int(rng.integers(1, 5)) for rng in rngs)
            found = here.run(calls, turns)
            wanted = here.plainly(others, turns)
            assert 1 <= len(found) == len(wanted) <= turns
            longest = max(longest, len(found))
            assert len(all_texts(found)) == len(all_texts(wanted))
            for one, other, call in zip(all_texts(found), all_texts(wanted), cycle(calls), strict=False):
                kind = "copies" if one.copied else type(call.drafts).__name__
                kinds[f"{kind} made"] += len(one.confidences)
                kinds[f"{kind} right"] += len(one.accepted)
                assert one[:2] == other[:2]
                assert (one.depth, one.copied, one.exits) == (other.depth, other.copied, other.exits)
                np.testing.assert_allclose(one.confidences, other.confidences, rtol=1e-5)
                copied += one.copied
                left += len(one.exits)
            for text, twin in open_texts:
                assert seen(text.state) == seen(twin.state)
                go_on(text.state)
                go_on(twin.state)
    assert copied > 0
    assert left > 0
    assert right_and_wrong(kinds), kinds


def right_and_wrong(kinds: Counter[str]) -> bool:
    """Whether drafts of every kind were kept and dropped."""
    names = [kind.__name__ for kind in get_args(RoundDrafts)]
    return all(kinds[f"{name} made"] > kinds[f"{name} right"] > 0 for name in names)


@pytest.mark.parametrize("engine", all_engines())
def test_rounds_give_the_text_of_plain_decoding(engine: Engine) -> None:
    seed = int(np.random.default_rng().integers(2**31))
    print("seed", seed)
    here = world(engine)
    rng = np.random.default_rng(seed)
    texts = begun(here, rng, 4)
    given: list[list[int]] = [[] for _ in texts]
    while open_texts := [i for i, text in enumerate(texts) if remaining(text)]:
        calls = [a_call(here, texts[i], rng) for i in open_texts]
        found = here.run(calls, int(rng.integers(1, 5)))
        for place, (i, call) in enumerate(zip(open_texts, calls, strict=True)):
            tokens = [token for done in found for token in done.texts[place].tokens]
            assert len(found) <= len(tokens) <= call.remaining
            assert not set(tokens[:-1]) & texts[i].ends, "a text went on behind its end"
            assert not any(done.texts[place].copied for done in found[:-1]), "nobody was asked after a copy"
            assert texts[i].state.speculative == ()
            go_on(texts[i].state)
            given[i] += tokens
        assert min(min(done[1:]) for done in found) >= 0
    for text, tokens in zip(texts, given, strict=True):
        assert tokens == plainly(here.backend, text)
        rows = [text.state.row(slot).token for slot in range(text.state.length)]
        assert rows == [*text.prompt, *tokens]


def all_texts(found: Sequence[RoundTurn]) -> list[RoundText]:
    return [text for done in found for text in done.texts]


@pytest.mark.parametrize("engine", all_engines())
def test_turns_end_where_something_is_to_be_decided(engine: Engine) -> None:
    here = world(engine)
    rng = np.random.default_rng(5)
    prompt = rng.integers(VOCAB, size=4).tolist()
    plain = plainly(here.backend, Text(new_state(here, prompt), None, None, Sampling(), frozenset(), prompt))  # type: ignore[arg-type]

    def turns(ends: frozenset[int], remaining: int, copies: CopyCall | None = None) -> list[list[int]]:
        call = RoundCall(new_state(here, prompt), Sampling(), ends, remaining, None, copies)
        return [list(done.texts[0].tokens) for done in here.backend.run_rounds([call], turns=6)]

    assert turns(frozenset(), MOST) == [[token] for token in plain[:6]]
    assert turns(frozenset(), 4) == [[token] for token in plain[:4]], "no more than may be given"
    end = plain[2]
    until = plain.index(end) + 1
    assert turns(frozenset({end}), MOST) == [[token] for token in plain[:until]], "none behind the end"
    waits = CopyCall(here.backend.copies(9, 9), MOST - 3, 0.0)  # finds nothing in so short a text
    assert turns(frozenset(), MOST, waits) == [[token] for token in plain[:3]], "no room for another copy"
    for count in (0, -1):
        with pytest.raises(RowError, match=f"{count} turns"):
            here.backend.run_rounds([RoundCall(new_state(here, prompt), Sampling(), (), 3)], turns=count)
    for longest, shortest in ((1, 2), (0, 0), (3, -1)):
        with pytest.raises(RowError, match=f"{longest} to {shortest} tokens"):
            here.backend.copies(longest, shortest)


@pytest.mark.parametrize("engine", all_engines())
def test_copies_follow_a_text_that_is_cut(engine: Engine) -> None:
    """What is copied is of the text that is there, not of one that was."""
    here = world(engine)
    ngrams, state = here.backend.copies(1, 1), here.backend.sequence(40)

    def copied(text: list[int]) -> tuple[int, ...]:
        state.rollback(state.length)
        state.append(text)
        call = RoundCall(state, Sampling(), (), 6, None, CopyCall(ngrams, 3, 0.0))
        [done] = here.backend.run_rounds([call])
        assert done.texts[0].copied is (text[-1] in text[:-1])
        return (len(done.texts[0].confidences), *np.round(done.texts[0].confidences[:1], 4).tolist())

    assert copied([1, 2, 3, 4, 5, 1]) == (3, round(2 / 3, 4))
    assert copied([7, 8]) == (0,)
    assert copied([7, 8, 7, 8, 7]) == (3, round(3 / 4, 4)), "followed twice by the same"
    assert copied([7, 8, 7, 8, 6, 5, 6]) == (3, round(2 / 3, 4)), "as long as before, and another"
    assert copied([1, 2, 3, 4, 5, 9, 8]) == (0,)
