"""What the loop tells the latency meter, and that it is measured once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from specee.backends.protocol import Backend
from specee.engine import Generation, Request, loop, reserve
from specee.engine.passes import in_step, verified_rows
from specee.policies import (
    Draft,
    DraftSource,
    ExitLayer,
    Latency,
    LeaveEarly,
    Needs,
    NextToken,
    NgramLookup,
    Plan,
    PredictedExit,
    PredictedTree,
    Pruned,
    Round,
    Speculate,
)
from tests.unit.runs import Say
from tests.unit.shadow_runs import PROMPT, begun


class Meter:
    """Counts what it is asked."""

    def __init__(self) -> None:
        self.asked, self.seen = 0, [(0, [(0, 0)])][:0]

    def table(self) -> Latency:
        self.asked += 1
        return Latency((1,), (1.0,), (1.0,))

    def observe(self, rows: int, parts: list[tuple[int, int]], _t: object, _s: float, together: int) -> None:
        assert together == 1
        self.seen.append((rows, parts))


def test_generations_share_a_meter_and_measure_once(engine: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    from specee.engine import latency as module

    measured: list[Backend] = []

    def counted(backend: Backend, *_: object) -> Latency:
        measured.append(backend)
        return Latency((1, 4), (1.0, 1.0), (1.0, 1.0))

    monkeypatch.setattr(module, "measure", counted)
    shared = module.LatencyMeter(engine)
    for needs in (Needs(latency=True), Needs(), Needs(latency=True)):
        policy = Say(*[NextToken((0,))] * 3, needs=needs)
        run = loop.Generation(engine, reserve(engine, [Request(PROMPT, 3)]), policy, None, None, shared)
        list(run)
        assert (policy.observations[0].latency is None) is not needs.latency
    assert measured == [engine]
    begun(engine, Needs(latency=True))
    assert len(measured) == 2, "one of its own"


def test_steps_tell_the_meter_what_they_did(engine: Backend) -> None:
    meter: Any = Meter()
    draft, copy = Draft(0, ExitLayer(1), 3), Draft(0, NgramLookup(8, 8), 2)
    plans: list[Plan] = [
        NextToken((0,)),
        Speculate((draft,)),
        Speculate((copy,)),
        *[NextToken((0,))] * 5,
    ]
    policy = Say(*plans, needs=Needs(latency=True))
    run = Generation(engine, reserve(engine, [Request(PROMPT, 12)]), policy, None, None, meter)
    for _ in range(8):
        run.step()
    # Neither the prompt nor most plain steps; the copies had nothing to copy.
    assert meter.seen == [(4, [(1, 1), (2, 4)]), (1, [(3, 1)])]
    assert meter.asked == 9, "at the start, and before every step"


def a_round(source: DraftSource | None, drafted: int, pruned: Sequence[int] = ()) -> Round:
    shown = drafted > 0 or bool(pruned)
    gone = tuple([Pruned(layer, 0.1) for layer in pruned])
    return Round(0, (1,), source if shown else None, drafted, pruned=gone)


def test_rows_of_a_verification() -> None:
    four, two, copies = a_round(ExitLayer(8), 4), a_round(ExitLayer(20), 2), a_round(NgramLookup(), 3)
    none = a_round(ExitLayer(8), 0)
    assert verified_rows([none], 30) == (1, [(30, 1)])
    assert verified_rows([four], 30) == (5, [(8, 1), (22, 5)])
    assert verified_rows([copies], 30) == (4, [(30, 4)])
    assert verified_rows([four, two, copies, none, none], 30) == (14, [(8, 8), (12, 12), (10, 14)])
    pruned, away = a_round(PredictedTree(), 2, (5, 5, 9)), a_round(PredictedTree(), 0, (4,))
    assert verified_rows([pruned], 30) == (3, [(5, 6), (4, 4), (21, 3)])
    assert verified_rows([away], 30) == (1, [(4, 2), (26, 1)])
    assert in_step(NextToken((0,)), [none, four, copies])
    assert in_step(Speculate(()), [pruned, away])
    assert not in_step(Speculate(()), [pruned, copies])
    assert not in_step(Speculate(()), [pruned, none])
    asked = Draft(0, PredictedExit(), 2)
    for plan in (Speculate((asked,)), Speculate((Draft(0, NgramLookup(), 2, otherwise=asked),))):
        assert not in_step(plan, [a_round(PredictedExit(), 1)])
        assert not in_step(plan, [none]), "its row has been asked about, in vain"
    assert in_step(Speculate((asked._replace(length=0),)), [none])
    assert not in_step(LeaveEarly(()), [pruned])
