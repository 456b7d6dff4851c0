"""Decode rounds on every device: kernel by kernel, and in one launch where there are conditional nodes."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from specee.cuda import graph
from specee.cuda.decode import decode_round
from specee.cuda.graph import Graph
from specee.cuda.program import run
from specee.cuda.record import SequenceOutcome, SequencePlan, decode, encode
from tests.cuda.devices import Device
from tests.graph import toy_model
from tests.graph.toy_model import HIDDEN, VOCAB, ToyModel

LAYERS, SEQUENCES = 4, 2


class OnDevice:
    """A toy model's round on a device; states and drafts follow from a seed."""

    def __init__(self, device: Device, seed: int, each: int) -> None:
        rng = np.random.default_rng(seed)
        states = rng.normal(0, 1, (SEQUENCES * each, HIDDEN)).astype(np.float32)
        drafts = rng.integers(0, VOCAB, SEQUENCES), np.full(SEQUENCES, 0.5, np.float32)
        self.device = device
        self.toy = ToyModel(states, LAYERS, SEQUENCES, rng, *(drafts if each > 1 else ()), put=device.put)
        self.state = toy_model.state(LAYERS, SEQUENCES, each, device.put)
        self.program = decode_round(self.state, self.toy.parts(self.state))

    def answer(
        self, launch: Any, layers: Seq[int], plans: list[SequencePlan]
    ) -> tuple[int, tuple[SequenceOutcome, ...]]:
        """What a round does that ``launch`` runs, with these layers in the plan."""
        self.toy.begin()
        data = np.frombuffer(encode(layers, plans), np.uint8)
        self.state.plan[...] = self.device.put(data)
        launch()
        return decode(self.device.get(self.state.result).tobytes(), SEQUENCES)


def test_a_round_kernel_by_kernel(device: Device, rng: np.random.Generator) -> None:
    """Three of four layers, and a token of each sequence."""
    one = OnDevice(device, int(rng.integers(2**32)), 1)
    plans = [SequencePlan(1, 2), SequencePlan(3, 4)]
    layers, outcomes = one.answer(lambda: run(one.program, device.launcher), (0, 1, 3), plans)
    assert layers == 3
    said = device.get(one.toy.accepted.next_tokens).tolist()
    assert [out.tokens for out in outcomes] == [(token,) for token in said]
    assert min(said) >= 0


@pytest.mark.parametrize("each", [1, 3])
def test_one_launch_says_what_the_kernels_say(device: Device, rng: np.random.Generator, each: int) -> None:
    """With conditional nodes: other plans in the same graph, and the same bits as kernel by kernel."""
    if device.name == "emulated":
        pytest.skip("emulated kernels: graphs are built and run with a fake driver in tests/graph")
    reason = graph.missing()
    if reason is not None:
        pytest.skip(f"graphs on {device.name} kernels: {reason}")
    function: Any = device.launcher.function  # type: ignore[attr-defined]
    one = OnDevice(device, int(rng.integers(2**32)), each)
    built = Graph(one.program, function)
    built.upload()
    drafts = SequencePlan(1, 2, drafts=each - 1, temperature=0.7, seed=int(rng.integers(2**63)))
    seen = set()
    for layers in (range(4), (0, 2), (3,), (), (0, 1, 3)):
        plans = [drafts, replace(drafts, drafts=0)]
        plain = one.answer(lambda: run(one.program, device.launcher), layers, plans)
        state = device.get(one.toy.h).tobytes()
        assert one.answer(built.launch, layers, plans) == plain
        assert device.get(one.toy.h).tobytes() == state
        seen.add(plain[0])
    assert seen == {0, 1, 2, 3, 4}, "rounds of different lengths"
