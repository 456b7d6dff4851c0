"""What a round decides (csrc/cuda/round.cuh), beside plain versions, for random plans."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from specee.cuda import record
from specee.cuda.acceptance import Accepted
from specee.cuda.given_record import GIVEN_PLAN, encode_given
from specee.cuda.record import ROUND_RESULT, SequencePlan, decode, encode
from specee.cuda.round import (
    NO_DRAFT,
    ChainRows,
    Drafted,
    begin_round,
    chain_rows,
    end_round,
    give_drafts,
    take_drafts,
    window_begins,
)
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.graph import toy_model

SIZES = [(1, 1, 1), (5, 3, 4), (256, 64, 18)]  # layers, sequences, rows of each


@dataclass
class World:
    """A random plan on a device, begun, for one sequence less than there is room for (if there are two)."""

    device: Device
    rng: np.random.Generator
    layers: int
    room: int
    each: int
    plans: list[SequencePlan] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = self.rng
        self.sequences = max(1, self.room - 1)
        self.mask = {int(i) for i in np.flatnonzero(rng.random(self.layers) < 0.6)}
        self.plans = [
            SequencePlan(
                token=int(rng.integers(1000)),
                position=int(rng.integers(10**6)),
                drafts=int(rng.integers(self.each)),
                floor=float(np.float32(rng.random())),
                temperature=float(rng.random()),
                seed=int(rng.integers(2**63)),
            )
            for _ in range(self.sequences)
        ]
        self.state = toy_model.state(self.layers, self.room, self.each, self.device.put)
        data = np.frombuffer(encode(self.mask, self.plans), np.uint8)
        self.state.plan[...] = self.device.put(data)
        begin_round(self.device.launcher, self.state)

    def get(self, array: Any) -> list[Any]:
        found: list[Any] = self.device.get(array).tolist()
        return found

    def result(self) -> np.ndarray:
        found: np.ndarray = np.frombuffer(self.device.get(self.state.result).tobytes(), ROUND_RESULT)[0]
        return found

    def of_rows(self, array: Any) -> list[Any]:
        """Those of rows that the plan has."""
        return self.get(array)[: self.sequences * self.each]

    def put(self, values: Any, dtype: Any) -> Any:
        """An array for all sequences that there is room for; the plan's have these values."""
        whole = np.full((self.room, *np.shape(values)[1:]), 7, dtype)
        whole[: self.sequences] = values
        return self.device.put(whole)


@pytest.fixture(params=SIZES, ids=["least", "some", "most"])
def world(request: pytest.FixtureRequest, device: Device, rng: np.random.Generator) -> World:
    return World(device, rng, *request.param)


def test_a_plan_taken_apart(world: World) -> None:
    each, plans = world.each, world.plans
    assert world.get(world.state.runs) == [int(layer in world.mask) for layer in range(world.layers)]
    assert world.get(world.state.drafts) == [int(any(plan.drafts for plan in plans))]
    tokens = [plan.token if depth == 0 else NO_DRAFT for plan in plans for depth in range(each)]
    assert world.of_rows(world.state.tokens) == tokens
    draws = world.state.draws
    places = [plan.position + depth for plan in plans for depth in range(each)]
    assert world.of_rows(draws.positions) == [place + 1 for place in places], "of what is drawn after them"
    assert world.of_rows(draws.seeds) == [plan.seed for plan in plans for _ in range(each)]
    assert world.of_rows(draws.temperatures) == [plan.temperature for plan in plans for _ in range(each)]
    rows = world.sequences * each
    which = world.rng.permutation(rows).astype(np.int32)
    for chosen in (None, which) if world.room == 1 else (which,):
        out = ChainRows(*(world.device.put(np.full(rows, -7, np.int32)) for _ in range(5)))
        on = None if chosen is None else world.device.put(chosen)
        chain_rows(world.device.launcher, world.state, on, out)
        order = range(rows) if chosen is None else chosen
        assert world.get(out.tokens) == [max(0, tokens[row]) for row in order]
        for array, more in ((out.positions, 0), (out.slots, 0), (out.lengths, 1), (out.ends, 1)):
            assert world.get(array) == [places[row] + more for row in order]
    begins = world.device.put(np.full(rows, -7, np.int32))
    window_begins(world.device.launcher, out.ends, begins, 1000)
    assert world.get(begins) == [max(0, end - 1000) for end in world.get(out.ends)]


def test_how_long_is_drafted(world: World) -> None:
    rng, count, each = world.rng, world.sequences, world.each
    drafted: list[list[int]] = [[] for _ in range(count)]
    drafting = [plan.drafts > 0 for plan in world.plans]
    undrawn = [False] * count
    turns = 0
    while world.get(world.state.drafts)[0]:
        assert any(drafting)
        tokens = rng.integers(0, 1000, count).astype(np.int32)
        tokens[rng.random(count) < 0.05] = -1
        confidences = np.sqrt(rng.random(count)).astype(np.float32)
        confidences[rng.random(count) < 0.05] = np.nan
        drafts = Drafted(world.put(tokens, np.int32), world.put(confidences, np.float32))
        take_drafts(world.device.launcher, world.state, drafts)
        for i, plan in enumerate(world.plans):
            if drafting[i] and tokens[i] >= 0:
                drafted[i].append(int(tokens[i]))
            undrawn[i] = undrawn[i] or bool(drafting[i] and tokens[i] < 0)
            sure = confidences[i] >= np.float32(plan.floor)
            drafting[i] = bool(drafting[i] and tokens[i] >= 0 and sure and len(drafted[i]) < plan.drafts)
        turns += 1
    assert not any(drafting)
    assert turns <= max(plan.drafts for plan in world.plans)
    rows = [
        [plan.token, *own, *[NO_DRAFT] * (each - 1 - len(own))]
        for plan, own in zip(world.plans, drafted, strict=True)
    ]
    assert world.of_rows(world.state.tokens) == [token for own in rows for token in own]
    newest = [i * each + len(own) for i, own in enumerate(drafted)]
    assert world.get(world.state.newest)[:count] == newest
    assert world.result()["sequence"]["drafted"][:count].tolist() == [len(own) for own in drafted]
    assert world.result()["sequence"]["drafting"][:count].tolist() == [-int(one) for one in undrawn]
    _, outcomes = decode(world.result().tobytes(), count)
    assert [one.undrawn for one in outcomes] == undrawn


def test_drafts_that_are_there(world: World) -> None:
    rng, count, each = world.rng, world.sequences, world.each
    drafts = [rng.integers(0, 1000, rng.integers(0, min(each + 2, 18))).tolist() for _ in range(count)]
    record = np.full(GIVEN_PLAN.itemsize, 255, np.uint8)
    data = np.frombuffer(encode_given(drafts), np.uint8)
    record[: len(data)] = data
    give_drafts(world.device.launcher, world.state, world.device.put(record))
    drafts = [own[: each - 1] for own in drafts]
    rows = [
        [plan.token, *own, *[NO_DRAFT] * (each - 1 - len(own))]
        for plan, own in zip(world.plans, drafts, strict=True)
    ]
    assert world.of_rows(world.state.tokens) == [token for own in rows for token in own]
    assert world.get(world.state.newest)[:count] == [i * each + len(own) for i, own in enumerate(drafts)]
    _, outcomes = decode(world.result().tobytes(), count)
    assert [list(one.drafts) for one in outcomes] == drafts
    for wrong in ([[1] * 18], []):
        with pytest.raises(ConfigurationError, match=r"allowed are (0..17|1..64)"):
            encode_given(wrong)


def test_what_came_of_it(world: World) -> None:
    """Accepted drafts in path order."""
    rng, count, each = world.rng, world.sequences, world.each
    everybody = world.room * each
    tokens = rng.integers(0, 1000, everybody).astype(np.int32)
    world.state.tokens[...] = world.device.put(tokens)
    accepted = rng.integers(0, each, count).astype(np.int32)
    next_tokens = rng.integers(-2, 1000, count).astype(np.int32)
    path = rng.permutation(everybody).astype(np.int32)
    put = world.device.put
    out = Accepted(
        put(np.zeros(everybody, np.int32)),
        put(path),
        world.put(accepted, np.int32),
        world.put(next_tokens, np.int32),
    )
    end_round(world.device.launcher, world.state, out)
    layers, outcomes = record.decode(world.device.get(world.state.result).tobytes(), count)
    assert layers == len(world.mask)
    for i, outcome in enumerate(outcomes):
        own = tokens[path[i * each + 1 : i * each + 1 + accepted[i]]].tolist()
        assert outcome.tokens == (*own, int(next_tokens[i]))
        assert outcome.accepted == accepted[i]
