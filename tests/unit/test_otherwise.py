"""A second draft source is used where the first has nothing."""

from __future__ import annotations

from specee.backends.protocol import Backend
from specee.engine import Request
from specee.policies import (
    Draft,
    ExitLayer,
    Needs,
    NextToken,
    NgramLookup,
    Speculate,
)
from specee.types import Sampling
from tests.unit.runs import by_hand
from tests.unit.shadow_runs import begun


def test_otherwise_is_drafted_where_the_first_source_has_nothing(engine: Backend) -> None:
    exit_layer = ExitLayer(1)
    repeats, new = (1, 2, 3, 4, 1, 2, 3), (5, 6, 7, 8)
    run, policy = begun(engine, Needs(), NextToken((0, 1)), requests=[Request(repeats, 9), Request(new, 9)])
    run.step()
    for sequence, prompt in enumerate((repeats, new)):  # so that the first one's end has been there before
        state = run.sequences[sequence]
        drafts = Draft(sequence, NgramLookup(8, 8), 2, 0.0, Draft(sequence, exit_layer, 1))
        policy.say(Speculate((drafts,)))
        run.step()
        entry = policy.outcomes[-1].rounds[0]
        assert (entry.source, entry.drafted) == (exit_layer, 1), prompt
        assert len(entry.confidences) == 1
        assert state.generated == by_hand(engine, prompt, len(state.generated), Sampling())
    twice = begun(engine, Needs(), requests=[Request((1, 2, 1, 2, 1, 2), 9)])
    # A prompt that repeats itself is copied from at once: the first source has something, and keeps it.
    twice[1].say(Speculate((Draft(0, NgramLookup(2, 1), 2, 0.0, Draft(0, exit_layer, 1)),)))
    twice[0].step()
    entry = twice[1].outcomes[0].rounds[0]
    assert (entry.source, entry.drafted) == (NgramLookup(2, 1), 2)
    nobody = begun(engine, Needs(), requests=[Request(new, 9)])
    nobody[1].say(Speculate((Draft(0, NgramLookup(), 2, 0.0, Draft(0, NgramLookup(1, 1), 2)),)))
    nobody[0].step()
    assert nobody[1].outcomes[0].rounds[0].source is None
    assert nobody[1].outcomes[0].rounds[0].drafted == 0
