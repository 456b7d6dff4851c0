"""What is said where there can be no graph: old drivers or none, programs and arrays that make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee import _graph
from specee.cuda import graph
from specee.cuda.graph import Graph, Means, Round
from specee.cuda.lowering import lower
from specee.cuda.program import Recorder
from specee.errors import BackendUnavailableError, ConfigurationError, DeviceError
from tests.graph.fake_driver import FakeDriver, FakeLauncher
from tests.graph.host_arrays import put
from tests.graph.toys import Toy, evaluate, inputs, mix, random_steps


def test_an_old_driver_says_so_and_kernels_are_launched(old_library: Path, rng: np.random.Generator) -> None:
    fake = FakeDriver(old_library)
    for version, why in (
        (
            12020,
            "the driver is of CUDA 12.2: conditional graph nodes need CUDA 12.4, so a driver of",
        ),
        (12080, "of CUDA 12.8, and has no cuGraphAddKernelNode_v2, cuGraphAddNode_v2, cuGraphConditional"),
    ):
        fake.reset(version)
        assert why in str(graph.missing(fake.path))
        launcher = FakeLauncher(fake)
        steps = random_steps(rng)
        numbers, flags = inputs(rng)
        toy = Toy(put(numbers), put(flags))
        program = toy.program(steps)
        with pytest.raises(BackendUnavailableError, match="kernels can be launched one by one instead"):
            Graph(program, launcher.function, library=fake.path)
        one = Round(program, Means(launcher, launcher.function, fake.path))
        assert one.how == "launches"
        assert why in str(one.reason)
        one.launch()
        evaluate(steps, numbers, flags)
        assert toy.numbers.tolist() == numbers.tolist()
        assert not [line for line in fake.log() if "Graph" in line]
        del launcher, one
        assert set(fake.live().values()) == {0}


def test_libraries_that_are_no_driver_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match=r"'.*libnone.so' cannot be loaded .*12.4 or newer"):
        _graph.Driver(str(tmp_path / "libnone.so"))
    with pytest.raises(
        BackendUnavailableError, match=r"has no cuInit, .*older than CUDA 11.4, or no CUDA driver"
    ):
        _graph.Driver(_graph.__file__)


def test_no_context_is_said(fake: FakeDriver) -> None:
    fake.reset(context=False)
    with pytest.raises(
        DeviceError, match="no CUDA context is current in this thread: put an array on the device"
    ):
        _graph.Module(graph.driver(fake.path), b"an image")


@pytest.mark.parametrize(
    ("steps", "conditionals", "why"),
    [
        ([("if", 1, [])], 1, "conditional 1: the program has 1"),
        ([("if", 0, []), ("if", 0, [])], 1, "conditional 0 is in the program twice"),
        ([("if", 0, [])], 2, "conditional 1 is not in the program"),
        ([("set", [(0, 16)]), ("if", 1, [("if", 0, [])])], 2, "conditional 0 is set outside of the body"),
        ([("unless", 0, [])], 1, "step 'unless' of 3 members: allowed are launch"),
        ([()], 0, "step '' of 0 members"),
    ],
)
def test_programs_that_make_no_sense_are_refused(
    fake: FakeDriver, steps: list[Any], conditionals: int, why: str
) -> None:
    owner = graph.driver(fake.path)
    with pytest.raises(ConfigurationError, match=why):
        _graph.Graph(owner, steps, conditionals)
    assert set(fake.live().values()) == {0}


def test_arrays_of_the_host_are_refused() -> None:
    recorder = Recorder()
    mix(recorder, np.zeros(3, np.int32), 0, 1)
    with pytest.raises(ConfigurationError, match=r"ndarray of shape \(3,\) is on no device"):
        lower(recorder.program(), lambda _: 1)
