"""What a round decides in which rows may leave (csrc/cuda/exit_round.cuh), beside plain versions."""

from __future__ import annotations

import numpy as np
import pytest

from specee.cuda.exit_record import ExitPlan, LeftAt, encode_exits
from specee.cuda.exits import confirm_exits, end_exits, enter_rows, keep_left, willing_exits
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.exit_world import SIZES, ExitWorld, exit_state

HIDDEN = 300


@pytest.fixture(params=SIZES, ids=["least", "some", "most", "waiting"])
def world(request: pytest.FixtureRequest, device: Device, rng: np.random.Generator) -> ExitWorld:
    return ExitWorld(device, rng, *request.param)


def test_a_plan_taken_apart(world: ExitWorld) -> None:
    state, plans, each, layers = world.state, world.plans, world.each, world.layers
    asked = [[int(layer in plan.checked) for plan in plans] for layer in range(layers)]
    assert world.get(state.runs) == [1] * layers
    assert world.get(state.asked) == asked
    assert world.get(state.checks) == [max(one) for one in asked]
    waits = {begin for plan in plans for begin in plan.begins} - {0}
    assert world.get(state.enters) == [int(layer in waits) for layer in range(layers)]
    assert world.get(state.flags) == [1, 0]
    rows: list[tuple[int, ...]] = []
    for plan in plans:
        rows += [(0, 0, -1)] * (each - len(plan.tokens))
        first = plan.position - len(plan.tokens) + 1
        for at, (token, begin) in enumerate(zip(plan.tokens, plan.begins, strict=True)):
            rows.append((token, first + at, begin))
    tokens, positions, begins = (list(one) for one in zip(*rows, strict=True))
    assert world.get(state.rows.tokens) == tokens
    assert world.get(state.rows.positions) == positions
    assert world.get(state.begins) == begins
    reach = [position + 1 for position in positions]
    assert world.get(state.reach) == world.get(state.rows.lengths) == reach
    there = [begin == 0 for begin in begins]
    assert world.get(state.rows.ends) == [
        r if is_there else 1 for r, is_there in zip(reach, there, strict=True)
    ]
    slots = [p if is_there else -1 for p, is_there in zip(positions, there, strict=True)]
    assert world.get(state.rows.slots) == slots
    draws = state.draws
    assert world.get(draws.positions) == [plan.position + 1 for plan in plans]
    assert [int(seed) for seed in world.device.get(draws.seeds)] == [plan.seed for plan in plans]
    assert world.get(draws.temperatures) == [plan.temperature for plan in plans]
    assert world.get(state.candidates) == [list(plan.candidates) for plan in plans]
    assert world.get(state.probabilities) == [[0.0] * world.count] * world.sequences
    assert world.get(state.left) == [0] * world.sequences


def test_rows_take_part_from_where_they_wait(world: ExitWorld) -> None:
    state, put = world.state, world.device.put
    rows = world.sequences * world.each
    began, x, states = (world.rng.standard_normal((rows, HIDDEN)).astype(np.float32) for _ in range(3))
    x, on = began.copy(), put(began)
    begins, slots, ends = (
        np.array(world.get(array)) for array in (state.begins, state.rows.slots, state.rows.ends)
    )
    positions = np.array(world.get(state.rows.positions))
    for layer in sorted(set(begins[begins > 0].tolist()) | {world.layers - 1})[-4:]:
        enter_rows(world.device.launcher, state, on, put(states), layer)
        now = begins == layer
        x[now], slots[now], ends[now] = states[now], positions[now], positions[now] + 1
        assert np.array_equal(world.device.get(on), x)
        assert world.get(state.rows.slots) == slots.tolist()
        assert world.get(state.rows.ends) == ends.tolist()


def test_who_leaves(world: ExitWorld) -> None:
    """Some chances are no numbers, some are what the threshold is, some tokens no candidates."""
    rng, count, put, launcher = world.rng, world.sequences, world.device.put, world.device.launcher
    plans, state, layers = world.plans, world.state, world.layers
    runs, checks = world.get(state.runs), world.get(state.checks)
    left: dict[int, LeftAt] = {}
    heads, head = 0, 1
    rows = count * world.each
    out = np.full((rows, HIDDEN), -7, np.float32)
    kept = put(out)
    for layer in range(0, layers, max(1, layers // 6)):
        chances = rng.random(count).astype(np.float32)
        chances[rng.random(count) < 0.2] = np.nan
        for at in np.flatnonzero(rng.random(count) < 0.2):
            chances[at] = plans[at].threshold
        on = put(chances)
        willing_exits(launcher, state, on, layer)
        willing = [
            at not in left and layer in plan.checked and float(chances[at]) > plan.threshold
            for at, plan in enumerate(plans)
        ]
        assert world.get(state.willing) == [int(one) for one in willing]
        assert world.get(state.flags) == [head, int(any(willing))]
        if not any(willing):
            continue
        targets = rng.integers(0, 40, count).astype(np.int32)
        for at in np.flatnonzero(rng.random(count) < 0.6):
            targets[at] = rng.choice(plans[at].candidates)
        targets[rng.random(count) < 0.05] = -2
        confirm_exits(launcher, state, on, put(targets), layer)
        x = rng.standard_normal((rows, HIDDEN)).astype(np.float32)
        keep_left(launcher, state, put(x), kept, layer + 1)
        heads += 1
        for at, plan in enumerate(plans):
            token = int(targets[at])
            if willing[at] and (token in plan.candidates or token < 0):
                left[at] = LeftAt(layer + 1, token, float(chances[at]))
                own = slice(at * world.each, (at + 1) * world.each)
                out[own] = x[own]
        if len(left) == count:
            head = 0
            for later in range(layer + 1, layers):
                runs[later] = checks[later] = 0
        assert world.get(state.runs) == runs
        assert world.get(state.checks) == checks
        assert world.get(state.flags)[0] == head
        assert world.get(state.left) == [left[at].layer if at in left else 0 for at in range(count)]
        assert np.array_equal(world.device.get(kept), out)
        if not head:
            break
    staying = rng.standard_normal((rows, HIDDEN)).astype(np.float32)
    keep_left(launcher, state, put(staying), kept, 0)
    targets = rng.integers(-2, 40, count).astype(np.int32)
    end_exits(launcher, state, put(targets))
    found = world.result()
    assert (found.layers, found.heads) == (sum(runs), heads + head)
    for at, one in enumerate(found.left):
        assert one == left.get(at, LeftAt(layers, int(targets[at]), 1.0))
        if at not in left:
            own = slice(at * world.each, (at + 1) * world.each)
            out[own] = staying[own]
    assert np.array_equal(world.device.get(kept), out)


def test_what_does_not_fit_is_refused(device: Device) -> None:
    def plan(
        tokens: int = 2, begins: tuple[int, ...] = (1, 0), position: int = 9, count: int = 1
    ) -> ExitPlan:
        return ExitPlan([1] * tokens, begins, position, (), range(count))

    encode_exits([plan()])
    for wrong, why in (
        ([], r"0 sequences in a round: allowed are 1\.\.64"),
        ([plan()] * 65, "65 sequences"),
        ([plan(18, (0,) * 18, 30)], r"18 rows up to position 30: allowed are 1\.\.17"),
        ([plan(0, ())], "0 rows"),
        ([plan(position=0)], "2 rows up to position 0"),
        ([plan(begins=(0, 1))], r"begin at layers \[0, 1\]"),
        ([plan(begins=(2, 1))], r"begin at layers \[2, 1\]"),
        ([plan(begins=(0,))], r"begin at layers \[0\] for 2 tokens"),
        ([plan(count=17)], r"17 candidates of a row: allowed are up to 16"),
        ([ExitPlan([1], [0], 0, [256])], r"checked layers: 256; allowed are 0\.\.255"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            encode_exits(wrong)
    for sizes, why in (
        ((300, 2, 1, 4), "300 layers, 2 sequences, 2 rows, 4 candidates"),
        ((4, 65, 1, 4), "65 sequences"),
        ((4, 2, 18, 4), r"1\.\.17 rows for each sequence"),
        ((4, 2, 1, 17), "17 candidates"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            exit_state(*sizes, device.put).sizes()
    state = exit_state(4, 2, 3, 4, device.put)
    chances = device.put(np.zeros(2, np.float32))
    with pytest.raises(ConfigurationError, match=r"layer 4: allowed are 0\.\.3"):
        willing_exits(device.launcher, state, chances, 4)
    x = device.put(np.zeros((5, 8), np.float32))
    with pytest.raises(ConfigurationError, match="x is"):
        enter_rows(device.launcher, state, x, x, 1)
    with pytest.raises(ConfigurationError, match="targets is"):
        end_exits(device.launcher, state, chances)
