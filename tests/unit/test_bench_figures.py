"""Figures of the benches from made-up samples: spreads, ratios, shares, turns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from specee.bench import machine, prompts
from specee.bench.decode import rounds, speed
from specee.bench.decode.rounds import Rounds
from specee.bench.decode.worker import Sample
from specee.bench.spread import ratio, spread
from specee.engine.statistics import Statistics
from specee.errors import ConfigurationError
from specee.integrations.stopwatch import Stopwatch
from specee.policies import ExitLayer, Outcome, Round, Times


class Fake:
    """A contender that says what it is told to."""

    def __init__(self, name: str, samples: list[Sample]) -> None:
        self.name, self.samples = name, samples

    def sample(self, prompt: list[int], tokens: int) -> Sample:
        return self.samples.pop(0)


def sample(first_s: float, tokens_s: float, steps: int = 4, tokens: tuple[int, ...] = (1, 2, 3, 4)) -> Sample:
    return Sample(first_s, tokens_s, steps, tokens)


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[speed.Turn]:
    """Two turns on a machine that is half as fast in the second, for all alike."""
    sweeps = [40.0, 20.0]
    monkeypatch.setattr(speed, "bandwidth", lambda threads: sweeps.pop(0))
    ours = Fake("ours", [sample(0.1, 200.0), sample(0.2, 100.0)])
    peer = Fake("peer", [sample(0.4, 50.0, 2), sample(0.8, 25.0, 4, (1, 2, 3, 5))])
    return [speed.take_turn([ours, peer], [7] * 20, 4, 1) for _ in range(2)]


def test_a_spread_is_median_and_range() -> None:
    assert spread([3.0, 1.0, 8.0]) == {"median": 3.0, "min": 1.0, "max": 8.0}


def test_ratios_pair_what_was_measured_in_the_same_turn() -> None:
    assert ratio([2.0, 9.0], [1.0, 3.0]) == {"median": 2.5, "min": 2.0, "max": 3.0}
    with pytest.raises(ValueError, match="zip"):
        ratio([1.0, 2.0], [1.0])


def test_drift_of_the_machine_leaves_ratios_alone(turns: list[speed.Turn]) -> None:
    found = speed.ratios(turns, ["ours"], ["peer"])["ours"]["peer"]
    assert found["decode"] == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert found["prompt"] == {"median": 4.0, "min": 4.0, "max": 4.0}
    assert speed.ratios(turns, ["ours"], []) == {}


def test_shares_are_of_the_bandwidth_just_then(turns: list[speed.Turn]) -> None:
    found = speed.figures("ours", turns, {"bytes_per_token": 100_000_000}, "ours")
    assert found["share_of_bandwidth"] == {"median": 0.5, "min": 0.5, "max": 0.5}
    assert found["share_of_best_bandwidth"] == pytest.approx(15 / 40)
    assert found["prompt_tokens_s"] == {"median": 150.0, "min": 100.0, "max": 200.0}
    assert found["same_text_turns"] == 2


def test_peers_have_steps_and_texts_but_no_share(turns: list[speed.Turn]) -> None:
    found = speed.figures("peer", turns, {"weights": "bf16"}, "ours")
    assert found["tokens_per_step"] == pytest.approx(8 / 6)
    assert found["same_text_turns"] == 1
    assert "share_of_bandwidth" not in found
    assert "acceptance" not in found


def test_rounds_leave_out_the_first_step() -> None:
    source = ExitLayer(3)
    statistics = Statistics()
    statistics.add(Outcome((Round(0, (5,)), Round(1, (6,)))), 7.0)
    both = (Round(0, (1, 2, 3), source, 3, 2), Round(1, (4,), source, 3, 0))
    statistics.add(Outcome(both, times=Times(draft=0.25, verify=0.5)), 1.0)
    statistics.add(Outcome((Round(0, (9,)),), times=Times(verify=0.5)), 1.0)
    found = rounds.of(statistics)
    assert (found.steps, found.rounds, found.tokens) == (3, 3, 5)
    assert (found.drafted, found.accepted) == (6, 2)
    assert found.shares["verify"] == pytest.approx(0.5)
    assert found.shares["python"] == pytest.approx(0.375)


def test_figures_of_rounds_count_over_all_runs() -> None:
    """A mean of rates would be 0.5; most drafts were made in the run where few stayed."""
    runs = [Rounds(3, 2, 4, 2, 2, {"verify": 0.9, "python": 0.1}), Rounds(9, 8, 8, 8, 0, {"verify": 0.5})]
    found = rounds.figures(runs)
    assert found["acceptance"] == pytest.approx(0.2)
    assert found["tokens_per_round"] == pytest.approx(1.2)
    assert found["shares"] == {"verify": pytest.approx(0.7), "python": pytest.approx(0.05)}
    plain = rounds.figures([Rounds(3, 2, 2, 0, 0, {})])
    assert "acceptance" not in plain
    assert plain["tokens_per_round"] == 1.0


def test_a_speed_run_reports_what_was_drafted(turns: list[speed.Turn]) -> None:
    for turn in turns:
        drafted = Rounds(2, 1, 3, 4, 2, {"verify": 1.0})
        turn.samples["ours"] = Sample(0.1, 200.0, 2, (1, 2, 3, 4), drafted)
    found = speed.figures("ours", turns, {"bytes_per_token": 100}, "peer")
    assert found["decode_to_first"] == {"median": 6.0, "min": 4.0, "max": 8.0}
    assert (found["acceptance"], found["tokens_per_round"], found["tokens_per_step"]) == (0.5, 3.0, 2.0)
    assert "share_of_bandwidth" not in found  # a token no longer costs what a step reads
    assert "acceptance" not in speed.figures("peer", turns, {}, "ours")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_every_contender_is_at_every_place_equally_often(count: int) -> None:
    fakes = [Fake(str(index), []) for index in range(count)]
    orders = [[fake.name for fake in speed.rotated(fakes, turn)] for turn in range(2 * count)]
    assert all(len(set(order)) == count for order in orders)
    for place in range(count):
        assert sorted(order[place] for order in orders) == sorted(2 * [fake.name for fake in fakes])


@pytest.mark.parametrize(
    ("names", "tokens", "rounds", "match"),
    [
        (["specee"], 1, 3, "tokens=1"),
        (["specee"], 8, 0, "rounds=0"),
        ([], 8, 1, "one or more"),
        (["specee", "specee"], 8, 1, "each once"),
    ],
)
def test_what_gives_no_rate_is_refused(names: list[str], tokens: int, rounds: int, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        speed.measure(names, threads=1, tokens=tokens, rounds=rounds)


def test_the_stopwatch_counts_tokens_not_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tokens at first, then two and one: three tokens in the two seconds after the first mark."""
    times = iter([10.0, 11.0, 12.0, 13.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(times))
    watch = Stopwatch()
    watch.put(np.arange(5))
    for count in (3, 2, 1):
        watch.put(np.arange(count))
    assert watch.first_token_s == 1.0
    assert watch.tokens_per_s == 1.5
    assert (len(watch.tokens), watch.steps) == (6, 3)


def test_a_single_step_has_no_rate() -> None:
    watch = Stopwatch()
    assert watch.tokens_per_s == 0.0
    watch.put(np.arange(5))
    watch.put(np.arange(3))
    assert watch.tokens_per_s == 0.0


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "cannot be read"),
        ("", "holds no prompt"),
        ("not json", "line 1"),
        ('{"turns": ["good"]}\n{"turns": []}', "line 2"),
        ('{"turns": [3]}', "line 1"),
    ],
)
def test_prompt_files_that_are_none_are_refused(tmp_path: Path, content: str | None, match: str) -> None:
    path = tmp_path / "prompts.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=match) as caught:
        prompts.load([path])
    assert str(path) in str(caught.value)


def test_prompts_that_copy_hold_what_is_to_be_copied() -> None:
    texts = prompts.load([prompts.OWN.with_name("copy_prompts.jsonl")])
    assert len(texts) == len(set(texts)) == 12
    assert all(80 <= len(text.split()) <= 260 for text in texts)


def test_own_prompts_and_given_files_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"turns": ["first", "later"]}\n\n{"turns": ["zweiter é"]}\n', encoding="utf-8")
    assert prompts.load([path, path]) == 2 * ["first", "zweiter é"]
    assert len(prompts.load()) > 8


def test_the_commit_is_of_the_checkout_or_none(tmp_path: Path) -> None:
    """A bench folder somewhere else in a repository must not take that repository's commit for its own."""
    installed = tmp_path / "site-packages" / "specee" / "bench"
    installed.mkdir(parents=True)
    machine._git(tmp_path, "init", "-q")
    assert machine._commit(installed) is None
    assert machine._commit(tmp_path / "missing") is None
