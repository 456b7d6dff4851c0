"""Replays against what can be worked out by hand, and against the same thing done slowly."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    ExitLayer,
    Latency,
    ModelView,
    Needs,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Shadow,
    Speculate,
    make_policy,
    policy_names,
)
from specee.policies.objective import Objective
from specee.replay import Replay, Text, Trace, replay
from tests.unit.recorded import TABLE, planted, random_trace

LAYERS = 24
NEEDS = Needs()


class Always:
    """The same plan in every round but a fresh one, as far as the text may grow."""

    name = "always"

    def __init__(self, draft: Draft, shadow: Shadow | None = None, needs: Needs = NEEDS) -> None:
        self._draft, self._shadow, self._needs = draft, (shadow,) if shadow else (), needs
        self.seen: list[Observation] = []
        self.outcomes: list[Outcome] = []

    def begin(self, model: ModelView) -> Needs:
        return self._needs

    def plan(self, observation: Observation) -> Plan:
        self.seen.append(observation)
        [view] = observation.sequences
        if view.fresh:
            return NextToken((0,), self._shadow)
        return Speculate((_cut(self._draft, view.remaining - 1),), self._shadow)

    def observe(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)


def _cut(draft: Draft, most: int) -> Draft:
    otherwise = draft.otherwise and _cut(draft.otherwise, most)
    return draft._replace(length=min(draft.length, most), otherwise=otherwise)


def plain_seconds(table: Latency, layers: int) -> float:
    return table.layers_seconds(layers, 1) + table.head_seconds(1) + table.call + table.step


def test_plain_decoding_is_the_measure() -> None:
    run = replay("autoregressive", planted(6))
    assert run.ratio == pytest.approx(1.0, abs=1e-12)
    assert (run.tokens, run.drafted, run.shadow_share) == (240, 0, 0.0)
    assert run.sources == {None: 240}
    assert run.deciding > 0
    assert 0 < run.replanning[0] <= run.replanning[1]
    anew = [entry.anew for entry in run.rounds]
    assert anew[0]
    assert sum(anew) == len({id(entry.plan) for text in run.texts for entry in text})


@pytest.mark.parametrize(("layer", "length"), [(6, 3), (6, 1), (7, 6), (20, 4)])
def test_a_layer_that_is_right_is_worth_what_the_objective_says(layer: int, length: int) -> None:
    """119 tokens after the first: whole rounds of length + 1, and one that is cut."""
    trace = planted(6)
    run = replay(f"layerskip:exit_layer={layer},speculation_length={length}", trace)
    objective = Objective(TABLE, LAYERS)
    rounds, left = divmod(119, length + 1)
    seconds = rounds * objective.seconds(layer, 1.0, length) + (
        objective.seconds(layer, 1.0, left - 1) if left else 0.0
    )
    assert run.seconds == pytest.approx(2 * seconds, rel=1e-9)
    assert run.ratio == pytest.approx(119 * plain_seconds(TABLE, LAYERS) / seconds, rel=1e-9)
    assert run.acceptance == 1.0


def test_a_layer_that_is_wrong_loses_its_drafts() -> None:
    run = replay("layerskip:exit_layer=5,speculation_length=1", planted(6, texts=1))
    objective = Objective(TABLE, LAYERS)
    seconds = 118 * objective.seconds(5, 1.0, 1) + objective.seconds(5, 1.0, 0)
    assert run.seconds == pytest.approx(seconds, rel=1e-9)
    assert run.acceptance == 0.0


def test_drafting_stops_after_an_unsure_token() -> None:
    policy = Always(Draft(0, ExitLayer(5), 4, stop_below=0.5))
    run = replay(policy, planted(6, texts=1))
    assert {entry.round.drafted for entry in run.rounds[1:-1]} == {1}
    sure = replay(Always(Draft(0, ExitLayer(6), 4, stop_below=0.5)), planted(6, texts=1))
    assert {entry.round.drafted for entry in sure.rounds[1:-1]} == {4}


def test_copies_cost_no_layer_and_others_stand_in() -> None:
    trace = _repeating()
    draft = Draft(0, NgramLookup(3, 2), 3, 0.0, Draft(0, ExitLayer(2), 1))
    run = replay(Always(draft), trace)
    copied = [e for e in run.rounds if isinstance(e.round.source, NgramLookup)]
    drafted = [e for e in run.rounds if e.round.source == ExitLayer(2)]
    assert copied
    assert drafted
    whole = next(e for e in copied if e.round.drafted == 3)
    assert whole.seconds == pytest.approx(Objective(TABLE, 3).seconds(0, 0.0, 3), rel=1e-9)
    assert whole.outcome.times.draft == 0
    assert drafted[0].seconds == pytest.approx(Objective(TABLE, 3).seconds(2, 1.0, 1), rel=1e-9)


def _repeating() -> Trace:
    tokens = np.array([1, 2, 3, 4, 5, *[7, 8, 9, 6] * 6], np.int32)
    drafts = np.tile(tokens[1:, None], (1, 3)).astype(np.int32)
    text = Text(tokens, 5, drafts, np.full(drafts.shape, 0.5, np.float32))
    return Trace("repeating", 3, TABLE, (text,))


def test_shadows_are_what_was_recorded_and_cost_their_states() -> None:
    trace = planted(6, texts=1)
    policy = Always(Draft(0, ExitLayer(6), 0), Shadow(0, (5, 6), 4), Needs((), (5, 6, LAYERS), 8))
    run = replay(policy, trace)
    first, later, last = (run.rounds[i] for i in (0, 5, -1))
    assert [(s.layer, s.matches) for s in first.outcome.shadows] == [(5, (False,) * 4), (6, (True,) * 4)]
    assert first.outcome.times.shadow == pytest.approx(
        TABLE.head_seconds(12) + TABLE.call
    )  # judged: 3 layers
    assert first.seconds == pytest.approx(first.outcome.times.shadow, rel=1e-9)  # the prompt does not count
    assert later.outcome.times.shadow == pytest.approx(TABLE.head_seconds(8) + TABLE.call)
    assert last.outcome.shadows == ()
    assert run.shadow_share > 0


@pytest.mark.parametrize(("kept", "positions", "judged", "seen"), [
    (8, None, True, 1), (8, 20, True, 8), (50, 40, True, 9), (8, 5, False, 1), (0, 5, True, 0),
])  # fmt: skip
def test_how_far_a_look_at_the_prompt_goes(kept: int, positions: int | None, judged: bool, seen: int) -> None:
    needs = Needs((), (2, LAYERS) if judged else (2,), kept)
    run = replay(Always(Draft(0, ExitLayer(6), 0), Shadow(0, (2,), positions), needs), planted(6, texts=1))
    shown = run.rounds[0].outcome.shadows
    assert (len(shown[0].matches) if shown else 0) == seen


def test_observations_are_those_of_the_loop() -> None:
    policy = Always(Draft(0, ExitLayer(6), 3), needs=Needs(latency=True))
    run = replay(policy, planted(6, texts=1))
    views = [observation.sequences[0] for observation in policy.seen]
    assert views[0] == (0, 9, (0,) * LAYERS, 120)
    assert views[1] == (0, 10, (9,) * LAYERS, 119)
    assert views[2].length == 14
    assert all(observation.latency is TABLE for observation in policy.seen)
    assert policy.outcomes == [entry.outcome for entry in run.rounds]
    other = TABLE._replace(step=1.0)
    replay(policy, planted(6, texts=1), other)
    assert policy.seen[-1].latency is other
    assert replay(Always(Draft(0, ExitLayer(6), 3)), planted(6, texts=1)).ratio == run.ratio


def test_a_policy_begins_anew_with_each_text() -> None:
    trace = planted(6, texts=2)
    policy = make_policy("del")
    both = replay(policy, trace)
    alone = replay("del", replace(trace, texts=trace.texts[1:]))
    assert _plans(both.texts[1]) == _plans(alone.texts[0])


def _plans(rounds: Any) -> list[Plan]:
    return [entry.plan for entry in rounds]


def test_a_drafter_block_is_not_in_a_record() -> None:
    with pytest.raises(ConfigurationError, match="drafter"):
        replay("drafter", random_trace(0, layers=12))


@pytest.mark.parametrize(
    "name", sorted({*policy_names()} - {"drafter", "drafter-tree", "specee", "specee-tree"})
)
@pytest.mark.parametrize("seed", range(3))
def test_every_policy_gives_the_whole_text(name: str, seed: int) -> None:
    trace = random_trace(seed, layers=12)
    run = replay(name, trace)
    for text, rounds in zip(trace.texts, run.texts, strict=True):
        emitted = tuple(token for entry in rounds for token in entry.round.tokens)
        assert emitted == text.words[text.prompt :], f"seed {seed}"


@pytest.mark.parametrize("seed", range(20))
def test_the_same_done_slowly(seed: int) -> None:
    rng = np.random.default_rng(seed + 1000)
    trace = random_trace(seed)
    layer, length, stop = int(rng.integers(1, 5)), int(rng.integers(0, 7)), float(rng.choice([0.0, 0.3, 0.6]))
    run = replay(Always(Draft(0, ExitLayer(layer), length, stop)), trace)
    found = [(entry.round.drafted, entry.round.accepted) for entry in run.rounds]
    wanted, seconds = slowly(trace, layer, length, stop)
    assert found == wanted, f"seed {seed}"
    assert run.seconds == pytest.approx(seconds, rel=1e-9, abs=1e-12), f"seed {seed}"


def slowly(trace: Trace, layer: int, length: int, stop: float) -> tuple[list[tuple[int, int]], float]:
    """Token by token, with its own arithmetic."""
    found, seconds, deepest = [], 0.0, trace.layers
    table = trace.latency
    for text in trace.texts:
        known = text.prompt
        while known < len(text):
            made = right = 0
            wrong = False
            whole_prompt = known == text.prompt
            if not (whole_prompt and known > 1):
                for ahead in range(min(length, len(text) - known - 1)):
                    row = known - 1 + ahead - text.first
                    made += 1
                    wrong = wrong or text.drafts[row, layer - 1] != text.tokens[known + ahead]
                    right += not wrong
                    seconds += layer * np.interp(1, table.rows, table.layer)
                    seconds += np.interp(1, table.rows, table.head)
                    if text.confidences[row, layer - 1] < stop:
                        break
                together = np.interp(made + 1, table.rows, table.layer)
                shallow = layer if made else 0
                seconds += shallow * table.layer[0] + (deepest - shallow) * together
                seconds += np.interp(made + 1, table.rows, table.head) + table.call + table.step
                if whole_prompt:
                    seconds -= deepest * table.layer[0] + table.head[0] + table.call + table.step
            found.append((made, right))
            known += right + 1
    return found, seconds


@pytest.mark.parametrize(("draft", "names"), [
    (Draft(0, ExitLayer(LAYERS), 1), "layer 24"),
    (Draft(0, ExitLayer(0), 1), "layer 0"),
    (Draft(0, ExitLayer(6, adapted=True), 1), "adapted=True"),
    (Draft(1, ExitLayer(6), 1), "sequence 1"),
    (Draft(0, ExitLayer(6), -1), "-1 drafts"),
    (Draft(0, NgramLookup(1, 2), 1), "prompt lookup of 2 to 1"),
    (Draft(0, ExitLayer(6), 0, 0.0, Draft(0, ExitLayer(30), 1)), "layer 30"),
])  # fmt: skip
def test_plans_that_cannot_be_carried_out_are_refused(draft: Draft, names: str) -> None:
    with pytest.raises(ConfigurationError, match=names):
        replay(Always(draft), planted(6))


@pytest.mark.parametrize("shadow", [
    Shadow(0, (7,)), Shadow(0, ()), Shadow(0, (6, 6)), Shadow(0, (LAYERS,)), Shadow(1, (6,)),
    Shadow(0, (6,), 4, adapted=True),
])  # fmt: skip
def test_looks_that_cannot_be_had_are_refused(shadow: Shadow) -> None:
    with pytest.raises(ConfigurationError, match="shadow"):
        replay(Always(Draft(0, ExitLayer(6), 1), shadow, Needs((), (6, LAYERS), 4)), planted(6))


def test_too_many_drafts_and_strange_plans_are_refused() -> None:
    class Strange(Always):
        def plan(self, observation: Observation) -> Any:
            return self._draft

    for draft in (Speculate((Draft(0, ExitLayer(6), 120),)), Speculate(()), NextToken((0, 1)), "plan"):
        with pytest.raises(ConfigurationError, match="plan"):
            replay(Strange(draft), planted(6))  # type: ignore[arg-type]


def test_policies_that_need_a_speculator_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="adapted"):
        replay("layerskip:adapted=true", planted(6))


def test_a_text_of_one_token_has_nothing_to_gain() -> None:
    run: Replay = replay("layerskip", planted(6, tokens=1))
    assert (run.ratio, run.shadow_share, run.tokens) == (1.0, 0.0, 2)
