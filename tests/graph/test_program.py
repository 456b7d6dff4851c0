"""Programs as data: what recorders write down, and what comes of it kernel by kernel."""

from __future__ import annotations

import numpy as np
import pytest

from specee.cuda.launcher import i32
from specee.cuda.program import Condition, If, Launch, Recorder, While, run
from specee.errors import ConfigurationError
from tests.graph.fake_driver import FakeDriver, FakeLauncher
from tests.graph.host_arrays import put
from tests.graph.toys import Toy, evaluate, inputs, mix, random_steps, store


def test_ops_are_written_down_with_their_bodies() -> None:
    numbers, flags = put([1, 2, 3], np.int32), put([0, 0], np.int32)
    recorder = Recorder()
    mix(recorder, numbers, 0, 7)
    with recorder.repeat(Condition(flags, 1)):
        with recorder.when(Condition(flags)):
            mix(recorder, numbers, 1, 8)
        store(recorder, flags, 1, 0)
    first, loop = recorder.program()
    assert isinstance(first, Launch)
    assert (first.kernel, first.grid, first.threads) == ("toy_mix", (1, 1, 1), 32)
    assert first.arguments[0] is numbers
    assert first.arguments[1:] == (i32(0), i32(7))
    assert isinstance(loop, While)
    assert loop.condition.index == 1
    branch, last = loop.body
    assert isinstance(branch, If)
    assert [step.kernel for step in branch.body if isinstance(step, Launch)] == ["toy_mix"]
    assert isinstance(last, Launch)
    assert last.kernel == "toy_store"
    assert numbers.tolist() == [1, 2, 3], "nothing ran"


def test_a_program_is_whole_or_not_at_all() -> None:
    recorder = Recorder()
    with (
        recorder.when(Condition(put([1], np.int32))),
        pytest.raises(ConfigurationError, match="1 bodies are open: ask for the program after them"),
    ):
        recorder.program()
    with pytest.raises(RuntimeError, match="on the way"), recorder.when(Condition(put([1], np.int32))):
        raise RuntimeError("on the way")
    (only,) = recorder.program()
    assert isinstance(only, If), "a body that was left by an error is not written down"


def test_conditions_are_int32_numbers_that_are_there() -> None:
    with pytest.raises(ConfigurationError, match=r"condition 2 of 2: allowed are 0..1"):
        Condition(put([1, 0], np.int32), 2)
    with pytest.raises(ConfigurationError, match=r"condition.values is float32"):
        Condition(put([1.0], np.float32))


def test_programs_launched_one_by_one_do_what_they_say(fake: FakeDriver, rng: np.random.Generator) -> None:
    launcher = FakeLauncher(fake)
    ran = 0
    for _ in range(40):
        steps = random_steps(rng)
        numbers, flags = inputs(rng)
        toy = Toy(put(numbers), put(flags))
        launcher.launched.clear()
        run(toy.program(steps), launcher)
        kernels = evaluate(steps, numbers, flags)
        assert toy.numbers.tolist() == numbers.tolist(), steps
        assert toy.flags.tolist() == flags.tolist(), steps
        assert len(launcher.launched) == kernels
        ran += kernels
    assert ran > 40
