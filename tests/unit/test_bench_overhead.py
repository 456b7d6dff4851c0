"""What Python costs: the stopwatch around native calls, and the figures made of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import specee
from specee.bench.decode import native_clock, overhead
from specee.bench.decode.overhead import Spent
from specee.errors import BackendUnavailableError, ConfigurationError
from specee.policies import Observation, Speculate
from specee.policies.prompt_lookup import PromptLookup

PROMPT = [5, 6, 7, 5, 6, 7, 5, 6]
PAUSE = 0.003


class SlowPolicy(PromptLookup):
    """Thinks for a while."""

    def plan(self, observation: Observation) -> Speculate:
        time.sleep(PAUSE)
        return super().plan(observation)._replace(turns=1)


class SlowEngine:
    """Computes for a while."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def run_rounds(self, *arguments: Any) -> Any:
        done = self._real.run_rounds(*arguments)
        time.sleep(PAUSE * len(done))
        return done


@pytest.mark.parametrize("policy", ["autoregressive", "layerskip:exit_layer=2", "prompt-lookup"])
def test_native_and_python_are_all_of_the_time(model: specee.Model, policy: str) -> None:
    with native_clock.watched(model.backend) as clock:
        begin = time.perf_counter()
        found = overhead.once(model, PROMPT, policy, 12, clock)
        elapsed = time.perf_counter() - begin
    assert found.tokens == 11
    assert 1 <= found.steps <= 11
    assert 0 < found.native < found.total < elapsed
    assert found.native + found.python == pytest.approx(found.total)
    assert clock.own > 0


def test_a_slow_policy_is_python_and_a_slow_engine_is_native(model: specee.Model) -> None:
    with native_clock.watched(model.backend) as clock:
        found = overhead.once(model, PROMPT, SlowPolicy(), 8, clock)
        assert found.python >= found.steps * PAUSE > found.native
    model.backend._engine = SlowEngine(model.backend._engine)  # type: ignore[attr-defined]
    with native_clock.watched(model.backend) as clock:
        found = overhead.once(model, PROMPT, "autoregressive", 8, clock)
        assert found.native >= found.steps * PAUSE > found.python


def test_watching_changes_no_token_and_ends(model: specee.Model) -> None:
    policy = "layerskip:exit_layer=2"
    plain = model.generate(PROMPT, max_new_tokens=12, do_sample=False, policy=policy)
    engine = model.backend._engine  # type: ignore[attr-defined]
    with native_clock.watched(model.backend):
        assert model.generate(PROMPT, max_new_tokens=12, do_sample=False, policy=policy) == plain
    assert model.backend._engine is engine  # type: ignore[attr-defined]
    assert model.generate(PROMPT, max_new_tokens=12, do_sample=False, policy=policy) == plain


def test_processor_time_leaves_out_what_others_took(model: specee.Model) -> None:
    with native_clock.watched(model.backend, time.thread_time) as clock:
        found = overhead.once(model, PROMPT, SlowPolicy(), 8, clock)
    assert 0 < found.python < found.steps * PAUSE


def test_errors_of_the_engine_pass_through(model: specee.Model) -> None:
    with native_clock.watched(model.backend) as clock:
        sequence = model.backend.sequence(4)
        with pytest.raises(specee.errors.CapacityError):
            sequence.append([1] * 5)
        assert clock.native > 0


def test_the_stopwatch_leaves_itself_out() -> None:
    """A clock that ticks once a look: what a call costs but for its own two looks belongs to neither side."""
    ticks = iter(range(100))
    clock = native_clock.NativeClock(lambda: float(next(ticks)))  # 0
    call = clock.timed(lambda: None)
    call()  # entered 1, begins 2, ends 3
    assert (clock.native, clock.own) == (1.0, 1.0)
    assert clock.total == 3.0  # 4 ticks since the start, one of them its own


def test_only_the_native_backend_can_be_watched() -> None:
    class Other:
        name = "reference"

    with pytest.raises(BackendUnavailableError, match="reference"), native_clock.watched(Other()):
        pass


def test_figures_are_per_step_per_token_and_at_the_rate() -> None:
    found = overhead.figures([Spent(10, 20, 0.1, 0.098), Spent(10, 10, 0.1, 0.096)])
    assert found["tokens_per_step"] == 1.5
    assert found["python_us_per_step"]["min"] == pytest.approx(200)
    assert found["python_us_per_token"] == pytest.approx({"median": 250, "min": 100, "max": 400})
    assert found["share_of_decode"]["max"] == pytest.approx(0.04)
    assert found["share_at_rate"]["max"] == pytest.approx(0.12)


def test_policies_take_turns_and_have_shares(folder: Path) -> None:
    found = overhead.measure(weights="fp32", model=str(folder), threads=1, rounds=2, tokens=9, most_prompts=2)
    assert found["runs"] == 4
    assert {name.partition(":")[0] for name in found["policies"]} == {
        *("autoregressive", "layerskip", "layerskip-adaptive", "threshold", "prompt-lookup", "del", "auto")
    }
    for one in found["policies"].values():
        assert one["tokens"] == 4 * 8
        assert 0 < one["share_of_decode"]["min"] <= one["share_of_decode"]["max"] < 1
        assert one["share_at_rate"]["median"] == pytest.approx(300e-6 * one["python_us_per_token"]["median"])
    assert found["policies"]["autoregressive"]["tokens_per_step"] == 1.0


def test_a_slow_machine_gets_as_many_turns_a_call(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one on which plain decoding gives 300 tokens/s: everybody is given longer alike."""
    real, given = specee.Model.start, []

    def start(self: specee.Model, *arguments: Any, burst: float = 0.03, **options: Any) -> Any:
        given.append(burst)
        return real(self, *arguments, burst=burst, **options)

    monkeypatch.setattr(specee.Model, "start", start)
    monkeypatch.setattr(overhead, "RATE", 1e6)
    found = overhead.measure(
        ["prompt-lookup"], weights="fp32", model=str(folder), threads=1, rounds=1, tokens=9, most_prompts=1
    )
    assert given[-1] == pytest.approx(found["burst_ms"] / 1e3)
    assert given[-1] > 0.03


@pytest.mark.parametrize(("tokens", "rounds"), [(1, 3), (8, 0)])
def test_what_has_no_later_step_is_refused(tokens: int, rounds: int) -> None:
    with pytest.raises(ConfigurationError, match=f"tokens={tokens}, rounds={rounds}"):
        overhead.measure(threads=1, tokens=tokens, rounds=rounds)
