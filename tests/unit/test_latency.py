"""The latency table: measured exactly where prices are known, and refined by what steps take."""

from __future__ import annotations

import gc
import math
import random
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from specee.backends.protocol import Backend
from specee.engine import Request, latency
from specee.engine.latency import LatencyMeter
from specee.engine.latency_measure import ROWS, STEP_SECONDS, plausible
from specee.policies import Latency, Times
from tests.engines import Engine, native_engines
from tests.random_model import BASE, random_model
from tests.unit.priced import PricedBackend, Prices
from tests.unit.runs import generation

LAYERS = 30


def meter(backend: PricedBackend, budget_s: float = 0.4) -> LatencyMeter:
    return LatencyMeter(backend.protocol, backend.clock, budget_s)


def close(values: tuple[float, ...], price: Callable[[int], float], within: float = 1e-6) -> bool:
    return values == pytest.approx([price(rows) for rows in ROWS], rel=within)


# Measuring


def test_the_table_is_what_things_cost() -> None:
    backend = PricedBackend(Prices(), num_layers=LAYERS, hidden_size=8, intermediate_size=8)
    table = meter(backend, budget_s=10.0).table()
    assert table.rows == ROWS
    assert close(table.layer, backend.prices.layer)
    assert close(table.head, backend.prices.head)
    assert table.call == pytest.approx(backend.prices.call, rel=1e-6)
    assert table.step == STEP_SECONDS
    assert {layers for layers, _ in backend.passes} == {LAYERS}


def test_a_large_model_is_measured_on_some_of_its_layers() -> None:
    prices = Prices(layer=lambda rows: 1e-3 * (20 + rows))
    backend = PricedBackend(
        prices, num_layers=LAYERS, hidden_size=2048, intermediate_size=2048, num_heads=256
    )
    began = backend.now
    table = meter(backend, budget_s=4.0).table()
    assert close(table.layer, prices.layer)
    assert close(table.head, prices.head)
    assert backend.now - began < 4.0
    depths = {
        layers for layers, _ in backend.passes[1:]
    }  # the first is the whole model, to know what it costs
    assert len(depths) == 1
    assert 1 < depths.pop() < LAYERS


def test_layers_that_a_cache_would_hold_are_not_fewer_for_being_slow() -> None:
    backend = PricedBackend(Prices(layer=lambda rows: 0.1), num_layers=4)
    meter(backend).table()
    assert {layers for layers, _ in backend.passes} == {4}


def test_a_slow_model_has_one_pass_of_one_row_and_one_of_the_most() -> None:
    prices = Prices(layer=lambda rows: 0.1 * (10 + rows), head=lambda rows: 0.2 * (10 + rows))
    backend = PricedBackend(prices, num_layers=2, hidden_size=8, intermediate_size=8)
    table = meter(backend).table()
    assert [rows for _, rows in backend.passes[1:]] == [1, 16]
    assert table.rows == ROWS  # the others lie on the line between them
    assert close(table.layer, prices.layer)
    assert close(table.head, prices.head)


@pytest.mark.parametrize("pass_seconds", [1e-5, 1e-3, 2e-2])
def test_the_budget_is_kept(pass_seconds: float) -> None:
    prices = Prices(lambda rows: pass_seconds * (1 + rows / 16) / LAYERS, lambda rows: pass_seconds / 10)
    backend = PricedBackend(prices, num_layers=LAYERS)
    began = backend.now
    meter(backend, budget_s=0.4).table()
    assert backend.now - began <= 0.4
    assert {rows for _, rows in backend.passes} == set(ROWS)


def test_passes_that_share_the_cores_do_not_count() -> None:
    seed = 7
    rng = random.Random(seed)
    prices = Prices(disturbance=lambda: 10.0 if rng.random() < 0.3 else 1.0)
    backend = PricedBackend(prices, num_layers=LAYERS, hidden_size=8, intermediate_size=8)
    table = meter(backend, budget_s=100.0).table()
    assert close(table.layer, prices.layer), f"seed {seed}"
    assert close(table.head, prices.head), f"seed {seed}"


def test_one_long_pass_does_not_end_the_measurement() -> None:
    calls = iter(range(1000))
    prices = Prices(
        lambda rows: 1e-3 / LAYERS, lambda rows: 1e-4, disturbance=lambda: 220.0 if next(calls) == 41 else 1.0
    )
    backend = PricedBackend(prices, num_layers=LAYERS)
    table = meter(backend).table()
    assert table.layer == pytest.approx([1e-3 / LAYERS] * 5)
    assert len(backend.passes) == 1 + 15 * len(ROWS)


def test_more_rows_never_take_less() -> None:
    assert plausible(ROWS, [1.0, 9.0, 3.0, 4.0, 2.0]) == (1.0, 2.0, 2.0, 2.0, 2.0)
    assert plausible(ROWS, [1.0, 1.5, 9.0, 9.0, 50.0]) == (1.0, 1.5, 3.0, 6.0, 12.0)
    assert plausible([1], [5.0]) == (5.0,)
    backend = PricedBackend(
        Prices(layer=lambda rows: 2e-4 if rows == 4 else 1e-4, head=lambda rows: 1e-3 / rows)
    )
    table = meter(backend).table()
    assert table.layer == pytest.approx([1e-4] * 5)
    assert table.head == pytest.approx([1e-3 / 16] * 5)


@pytest.mark.parametrize("positions", [1, 2, 3, 17, 20, 47])
def test_short_contexts_and_one_layer(positions: int) -> None:
    backend = PricedBackend(Prices(), num_layers=1, max_position=positions)
    table = meter(backend).table()
    assert table.rows == (tuple(rows for rows in ROWS if rows < positions) or (1,))
    assert table.layer == pytest.approx([backend.prices.layer(rows) for rows in table.rows])
    assert table.head == pytest.approx([backend.prices.head(rows) for rows in table.rows])


def test_the_scratch_sequence_goes() -> None:
    backend = PricedBackend(Prices())
    shared = meter(backend)
    shared.table()
    [sequence] = backend.sequences
    assert sequence.speculative == ()
    left = weakref.ref(sequence)
    backend.sequences.clear()
    del sequence
    gc.collect()
    assert left() is None


def test_threads_that_ask_at_once_measure_once() -> None:
    backend = PricedBackend(Prices())
    shared = meter(backend)
    with ThreadPoolExecutor(4) as pool:
        tables = list(pool.map(lambda _: shared.table(), range(8)))
    assert len(backend.sequences) == 1
    assert all(table is tables[0] for table in tables)


@pytest.mark.parametrize("engine", [Engine("reference"), *native_engines()])
def test_a_real_backend(engine: Engine) -> None:
    backend = engine.load(random_model(BASE, seed=5))
    before = generated(backend)
    table = LatencyMeter(backend, budget_s=0.1).table()
    for seconds in (table.layer, table.head):
        assert len(seconds) == len(ROWS)
        assert all(math.isfinite(value) and value > 0 for value in seconds)
        assert list(seconds) == sorted(seconds)
    assert table.call >= 0
    assert generated(backend) == before


def generated(backend: Backend) -> list[int]:
    run = generation(backend, Request((1, 2, 3), 6))
    list(run)
    return run.sequences[0].generated


# Refining

NEAR = 0.04  # what changes by less than 3 % is not told
CHAIN = (5, [(8, 1), (22, 5)])
PLAIN = (1, [(30, 1)])


class Machine:
    """Steps on a machine whose prices may change."""

    def __init__(self, call: float = 3e-5) -> None:
        self.backend = PricedBackend(Prices(call=call), num_layers=LAYERS, hidden_size=8, intermediate_size=8)
        self.layer, self.head = self.backend.prices.layer, self.backend.prices.head
        self.loop = STEP_SECONDS
        self.meter = meter(self.backend, budget_s=10.0)
        self.first = self.meter.table()

    def steps(self, count: int, *kinds: tuple[int, list[tuple[int, int]]], slower: float = 1.0) -> Latency:
        """In turns; ``slower`` goes for all that the backend does."""
        for step in range(count):
            rows, parts = kinds[step % len(kinds)]
            layers = slower * sum(layers * self.layer(together) for layers, together in parts)
            times = Times(0.003, 0.001, layers, slower * self.head(rows), 0.002)
            self.meter.observe(rows, parts, times, times.total + self.backend.prices.call + self.loop)
        return self.meter.table()

    def scaled(self, table: Latency, by: float, within: float) -> bool:
        """Whether all entries are those of the first table times ``by``."""
        pairs = zip(table.layer + table.head, self.first.layer + self.first.head, strict=True)
        return all(new == pytest.approx(by * old, rel=within) for new, old in pairs)


def test_the_same_object_while_nothing_changes() -> None:
    machine = Machine()
    assert machine.steps(500, PLAIN, CHAIN) is machine.first
    assert machine.steps(500, PLAIN, CHAIN, slower=1.02) is machine.first  # not enough to matter


@pytest.mark.parametrize("kinds", [[PLAIN], [CHAIN], [PLAIN, CHAIN]])
@pytest.mark.parametrize("slower", [1.5, 0.7, 4.0])
def test_a_slower_or_quicker_machine_is_followed(
    kinds: list[tuple[int, list[tuple[int, int]]]], slower: float
) -> None:
    machine = Machine()
    table = machine.steps(200, *kinds, slower=slower)
    assert table is not machine.first
    assert machine.scaled(table, slower, within=0.05)  # row counts that no step had follow too
    assert machine.scaled(machine.steps(200, *kinds), 1.0, within=0.05)  # and back


def test_a_meter_that_does_not_follow_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "_DRIFT", 0.0)
    machine = Machine()
    assert not machine.scaled(machine.steps(200, PLAIN, slower=1.5), 1.5, within=0.05)


def test_one_disturbed_step_moves_nothing() -> None:
    machine = Machine()
    for _ in range(50):
        assert machine.steps(1, CHAIN, slower=10.0) is machine.first
        for _ in range(22):
            assert machine.steps(1, PLAIN) is machine.first


def test_a_few_disturbed_steps_are_forgotten() -> None:
    machine = Machine()
    disturbed = machine.steps(16, CHAIN, slower=10.0)
    assert machine.scaled(disturbed, 1.5, within=0.5)
    assert machine.scaled(machine.steps(200, PLAIN, CHAIN), 1.0, within=NEAR)


def test_row_counts_learn_their_own_prices() -> None:
    machine = Machine()
    old = machine.layer
    machine.layer = lambda rows: old(rows) * (1.2 if rows >= 4 else 1.0)
    table = machine.steps(3000, PLAIN, (4, [(30, 4)]), CHAIN)
    assert table.layer[2] / table.layer[0] == pytest.approx(1.2 * old(4) / old(1), rel=NEAR)
    assert table.layers_seconds(30, 5) == pytest.approx(30 * machine.layer(5), rel=NEAR)
    assert table.layers_seconds(30, 1) == pytest.approx(30 * machine.layer(1), rel=NEAR)


def test_both_entries_beside_a_row_count_learn_from_it() -> None:
    machine = Machine()
    old = machine.layer
    machine.layer = lambda rows: old(rows) * (1.2 if rows == 6 else 1.0)
    table = machine.steps(3000, PLAIN, PLAIN, (6, [(30, 6)]))
    assert table.layers_seconds(30, 6) == pytest.approx(30 * machine.layer(6), rel=NEAR)
    assert table.layer[2] / old(4) == pytest.approx(table.layer[3] / old(8), rel=0.01)


@pytest.mark.parametrize("factor", [1.4, 0.7])
def test_row_counts_that_no_step_had_give_way(factor: float) -> None:
    """One row takes longer than 8 were measured to, or 16 less."""
    machine = Machine()
    old = machine.head
    machine.head = lambda rows: old(rows) * (factor if (rows == 1) == (factor > 1) else 1.0)
    table = machine.steps(3000, PLAIN, PLAIN, PLAIN, (16, [(30, 16)]))
    assert list(table.head) == sorted(table.head)
    seen = 0 if factor > 1 else -1
    assert table.head[seen] == pytest.approx(machine.head(ROWS[seen]), rel=NEAR)


def test_the_head_learns_its_own_price() -> None:
    machine = Machine()
    old = machine.head
    machine.head = lambda rows: 1.5 * old(rows)
    table = machine.steps(3000, PLAIN, CHAIN)
    assert table.head_seconds(1) == pytest.approx(machine.head(1), rel=NEAR)
    assert table.layers_seconds(1, 1) == pytest.approx(machine.layer(1), rel=NEAR)


def test_the_loop_learns_what_it_takes() -> None:
    machine = Machine(call=0.02)
    machine.loop = 0.05
    assert machine.steps(500, PLAIN).step == pytest.approx(0.05, rel=0.1)
    machine.loop = -1.0  # clocks may disagree
    assert machine.steps(5000, PLAIN).step > 0
    machine.loop = 0.05
    assert machine.steps(500, PLAIN).step == pytest.approx(0.05, rel=0.1)


def test_a_step_may_stand_for_several_of_one_call() -> None:
    """It has its share of the call, and counts as often: a slower machine is noticed after as many steps."""
    machine = Machine(call=0.02)
    times = Times(0.003, 0.001, 30 * machine.layer(1), machine.head(1))
    for _ in range(300):
        machine.meter.observe(1, [(30, 1)], times, times.total + 0.02 / 4 + 0.05, together=4)
    assert machine.meter.table().step == pytest.approx(0.05, rel=0.1)
    slower = Times(verify=1.2 * times.verify, head=1.2 * times.head)
    for together, calls in ((1, 64), (4, 16)):
        fresh = Machine(call=0.02)
        for _ in range(calls):
            around = 0.02 / together + STEP_SECONDS
            fresh.meter.observe(1, [(30, 1)], slower, slower.total + around, together=together)
        table = fresh.meter.table()
        assert table is not fresh.first
        assert table.layer[0] == pytest.approx(1.2 * fresh.first.layer[0], rel=0.05)


def test_nothing_is_learnt_where_there_is_no_table() -> None:
    backend = PricedBackend(Prices())
    shared = meter(backend)
    shared.observe(1, [(3, 1)], Times(verify=1.0, head=1.0), 2.0)
    assert backend.sequences == []
    table = shared.table()
    for _ in range(100):
        shared.observe(17, [(3, 17)], Times(verify=1.0, head=1.0), 2.0)  # more rows than it has
        shared.observe(1, [(3, 1)], Times(), 1e-4)  # nothing was timed
    assert shared.table() is table
