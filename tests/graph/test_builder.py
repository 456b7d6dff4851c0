"""The graph builder against recorded programs: nodes, edges, nesting, arguments, conditions, errors."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee import _graph
from specee.cuda import graph
from specee.cuda.graph import Graph, Means, Round
from specee.cuda.launcher import i32
from specee.cuda.lowering import argument_bytes, lower, place
from specee.cuda.program import Condition, If, Launch, Program, Recorder, While
from specee.errors import BackendUnavailableError, DeviceError
from tests.graph.fake_driver import FakeDriver, FakeLauncher, Node
from tests.graph.host_arrays import put
from tests.graph.toys import FLAGS, Toy, evaluate, inputs, mix, random_steps, store

BATCH = 64


def settings(node: Node) -> list[tuple[int, int]]:
    """(handle, address) pairs that a node of set_conditions hands over."""
    (data,) = node.arguments
    numbers = struct.unpack(f"<{2 * BATCH}Qii", data)
    count = numbers[-2]
    assert 1 <= count <= BATCH
    return list(zip(numbers[:count], numbers[BATCH : BATCH + count], strict=True))


def check_body(program: Program, nodes: list[Node], conditions: dict[int, int]) -> int:
    """Walk a program beside what was built of it; how many set_conditions. Notes where conditions are."""
    assert [node.after for node in nodes] == [[], *([node.id] for node in nodes[:-1])][: len(nodes)]
    own = [node for node in nodes if node.kernel != "set_conditions"]
    sets = len(nodes) - len(own)
    assert len(own) == len(program)
    for step, node in zip(program, own, strict=True):
        if isinstance(step, Launch):
            assert node.kind == "kernel"
            assert (node.kernel, node.grid, node.block) == (step.kernel, step.grid, (step.threads, 1, 1))
            assert node.arguments == [argument_bytes(argument) for argument in step.arguments]
            continue
        assert node.kind == ("if" if isinstance(step, If) else "while")
        assert node.handle not in conditions, "a handle belongs to one node"
        conditions[node.handle] = place(step.condition)
        if isinstance(step, While):
            assert settings(node.body[-1]) == [(node.handle, place(step.condition))], "asked again at the end"
        sets += check_body(step.body, node.body, conditions)
    return sets


def flat(nodes: list[Node]) -> list[Node]:
    """Nodes of all bodies."""
    return [one for node in nodes for one in (node, *flat(node.body))]


def walk(program: Program, fake: FakeDriver) -> int:
    """Compare all of a graph; how many set_conditions it has."""
    conditions: dict[int, int] = {}
    nodes = fake.nodes()
    sets = check_body(program, nodes, conditions)
    # Each condition belongs to the graph that its node is in, and is set from its own number.
    assert fake.handles() == {node.handle: node.graph for node in flat(nodes) if node.kind != "kernel"}
    pairs = [pair for node in flat(nodes) if node.kernel == "set_conditions" for pair in settings(node)]
    assert set(pairs) == set(conditions.items())
    return sets


def depth(program: Program) -> int:
    return 1 + max((depth(step.body) for step in program if not isinstance(step, Launch)), default=0)


def test_random_programs_are_built_as_they_say(fake: FakeDriver, rng: np.random.Generator) -> None:
    deepest = 0
    for _ in range(30):
        fake.reset()
        launcher = FakeLauncher(fake)
        program = Toy(*map(put, inputs(rng))).program(random_steps(rng))
        built = Graph(program, launcher.function, library=fake.path)
        walk(program, fake)
        deepest = max(deepest, depth(program))
        del built, launcher
        assert set(fake.live().values()) == {0}
    assert deepest >= 4


def test_one_launch_does_what_the_kernels_do_one_by_one(fake: FakeDriver, rng: np.random.Generator) -> None:
    """The fake runs nodes in any order that edges allow, and refuses a condition that nothing has set."""
    fake.seed(int(rng.integers(2**63)))
    ran = 0
    for _ in range(40):
        steps = random_steps(rng)
        launcher = FakeLauncher(fake)
        numbers, flags = inputs(rng)
        toy = Toy(put(numbers), put(flags))
        built = Graph(toy.program(steps), launcher.function, library=fake.path)
        built.upload()
        for _ in range(2):
            built.launch()
            ran += evaluate(steps, numbers, flags)
            assert toy.numbers.tolist() == numbers.tolist(), steps
            assert toy.flags.tolist() == flags.tolist(), steps
    assert ran > 80


def recorded(numbers: Any, flags: Any) -> Program:
    """A loop with a branch in it, then two branches that are decided before both."""
    recorder = Recorder()
    store(recorder, flags, 0, 2)
    with recorder.repeat(Condition(flags, 0)):
        with recorder.when(Condition(flags, 1)):
            mix(recorder, numbers, 0, 5)
        store(recorder, flags, 0, 0)
    with recorder.when(Condition(flags, 2)):
        mix(recorder, numbers, 1, 6)
    with recorder.when(Condition(flags, 3)):
        store(recorder, flags, 4, 1)
    with recorder.when(Condition(flags, 4)):
        mix(recorder, numbers, 2, 7)
    return recorder.program()


def test_a_recorded_plan_node_by_node(fake: FakeDriver) -> None:
    numbers, flags = put(np.zeros(3, np.int32)), put(np.zeros(5, np.int32))
    launcher = FakeLauncher(fake)
    built = Graph(recorded(numbers, flags), launcher.function, library=fake.path)

    def shape(nodes: list[Node]) -> list[Any]:
        return [node.kernel or (node.kind, shape(node.body)) for node in nodes]

    def flag(address: int) -> int:
        return (address - flags.ctypes.data) // 4

    nodes = fake.nodes()
    assert shape(nodes) == [
        *("toy_store", "set_conditions"),
        ("while", ["set_conditions", ("if", ["toy_mix"]), "toy_store", "set_conditions"]),
        # The loop stored to a flag: all that are to come are set anew, at once; so does the second branch.
        *("set_conditions", ("if", ["toy_mix"]), ("if", ["toy_store"])),
        *("set_conditions", ("if", ["toy_mix"])),
    ]
    assert [[flag(at) for _, at in settings(nodes[i])] for i in (1, 3, 6)] == [[0, 2, 3, 4], [2, 3, 4], [4]]
    assert [flag(at) for _, at in settings(nodes[2].body[0])] == [1]
    assert nodes[0].arguments == [
        struct.pack("<Q", flags.ctypes.data),
        struct.pack("<i", 0),
        struct.pack("<q", 2),
    ]
    del built


def test_more_conditions_than_one_kernel_sets(fake: FakeDriver) -> None:
    number = BATCH + 7
    numbers, flags = put([1], np.int32), put(np.arange(number) % 3 == 0, np.int32)
    recorder = Recorder()
    for i in range(number):
        with recorder.when(Condition(flags, i)):
            mix(recorder, numbers, 0, i)
    launcher = FakeLauncher(fake)
    built = Graph(recorder.program(), launcher.function, library=fake.path)
    nodes = fake.nodes()
    assert [len(settings(node)) for node in nodes if node.kernel] == [BATCH, 7]
    built.launch()
    expected = 1
    for i in range(0, number, 3):
        expected = (expected * 3 + i) % 10007
    assert numbers.tolist() == [expected]


def test_a_program_of_nothing(fake: FakeDriver) -> None:
    launcher = FakeLauncher(fake)
    Graph((), launcher.function, library=fake.path).launch()
    assert fake.nodes() == []


def test_a_condition_that_nothing_sets_is_noticed(library: Path) -> None:
    """The negative control of the fake: without set_conditions a graph does not run."""
    fake = FakeDriver(library)
    launcher = FakeLauncher(fake)
    owner = graph.driver(fake.path)
    built = _graph.Graph(owner, [("if", 0, [])], 1)
    with pytest.raises(DeviceError, match="launching a graph failed"):
        built.launch(0)
    assert "has a condition that nothing set" in fake.misuses()[0]
    del built, launcher


def build_all(fake: FakeDriver, program: Program) -> None:
    """All that the driver is asked for, from its loading to the end."""
    launcher = FakeLauncher(fake)
    built = Graph(program, launcher.function, library=fake.path)
    built.upload(3)
    built.launch(3)


def test_every_call_may_fail_and_nothing_is_left(fake: FakeDriver, rng: np.random.Generator) -> None:
    steps: list[Any] = []
    while not 10 <= sum(map(repr(steps).count, ("Mix", "When", "Repeat"))) <= 40:
        steps = random_steps(rng)
    program = Toy(*map(put, inputs(rng))).program(steps)
    build_all(fake, program)
    fake.reset()
    build_all(fake, program)
    log, calls = fake.log(), fake.calls()
    assert calls > 20
    for call in range(1, calls + 1):
        fake.reset()
        fake.fail(call)
        name, *later = (line.split()[0] for line in log[call - 1 :])
        unloads = name == "cuCtxGetCurrent" and later[0] == "cuModuleUnload"
        if unloads or name in ("cuGraphExecDestroy", "cuGraphDestroy", "cuModuleUnload"):
            build_all(fake, program)  # what is done with is done with
        else:
            error = BackendUnavailableError if name == "cuInit" else DeviceError
            with pytest.raises(error, match="CUDA_ERROR_OUT_OF_MEMORY, 2: out of memory"):
                build_all(fake, program)
        assert f"{name} " in f"{fake.log()[call - 1]} "
        assert "FAILS" in fake.log()[call - 1]
        assert set(fake.live().values()) == {0}, name


def test_a_new_driver_gets_a_graph(fake: FakeDriver) -> None:
    assert graph.missing(fake.path) is None
    launcher = FakeLauncher(fake)
    numbers, flags = put([5], np.int32), put([1], np.int32)
    recorder = Recorder()
    with recorder.when(Condition(flags)):
        mix(recorder, numbers, 0, 1)
    one = Round(recorder.program(), Means(launcher, launcher.function, fake.path))
    assert (one.how, one.reason) == ("graph", None)
    one.launch(7)
    assert numbers.tolist() == [16]
    assert launcher.launched == []
    assert fake.log()[-1] == "cuGraphLaunch 7"


def test_views_and_neighbours_are_told_apart() -> None:
    """A kernel given an array beside the condition's cannot have changed it; one with a view of it may."""
    flags = put(np.zeros(FLAGS, np.int32))
    for view, sets in ((flags[:2], 1), (flags[2:4], 2), (flags, 2), (flags[4:], 1)):
        recorder = Recorder()
        for _ in range(2):
            with recorder.when(Condition(flags, 3)):
                recorder.launch("toy", (1, 1, 1), 32, [view, i32(0)])
        steps, _ = lower(recorder.program(), lambda _: 1)
        assert [step[0] for step in steps].count("set") == sets
