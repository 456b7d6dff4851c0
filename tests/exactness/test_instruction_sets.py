"""Which results have the same bits on every instruction set of this machine: docs/numerics.md, as a test.

Multiply-adds are fused everywhere but in ``portable`` on x86-64, and the sums of quantised products are exact
integers: whether a processor adds them by fours, by pairs or one by one cannot show.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.engines import PAIRWISE, Engine, supported_isas
from tests.exactness.test_batch_invariance import Result, differing, read, tokens_of
from tests.random_model import SHAPES, random_model

FUSED = [isa for isa in supported_isas() if isa != "portable"]
pytestmark = pytest.mark.skipif(len(FUSED) < 2, reason=f"nothing to compare: this machine has {FUSED}")


def results(isa: str, name: str, kind: str, cache: str) -> Result:
    """Bits of 64 rows computed in passes of 1, 6 and 57."""
    model = random_model(SHAPES[name], seed=21, kind=kind)
    backend = Engine("cpu", isa).load(model, kind)
    assert backend.isa == isa  # type: ignore[attr-defined]
    tokens, sequence, parts = tokens_of(model), backend.sequence(64, cache, poison=True), []
    for begin, end in ((0, 1), (1, 7), (7, 64)):
        slots = list(sequence.append(tokens[begin:end]))
        backend.advance([(sequence, slots)], model.config.num_layers)
        parts.append(read(backend, sequence, slots))
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


@pytest.mark.parametrize(
    ("name", "kind", "cache"),
    [
        ("llama", "fp32", "fp32"),
        ("llama", "int8", "fp16"),
        ("llama-biases", "int4", "fp16"),
        ("odd", "int8", "bf16"),
        ("odd", "int4", "fp32"),
        ("mistral-window", "int4", "fp16"),
        ("aligned", "q4_0", "fp16"),
        ("aligned", "mixed", "fp16"),
        ("wide", "k-quants", "fp16"),
    ],
)
@pytest.mark.parametrize("isa", FUSED[1:])
def test_same_bits(isa: str, name: str, kind: str, cache: str) -> None:
    first = results(FUSED[0], name, kind, cache)
    assert differing(first, list(range(64)), results(isa, name, kind, cache)) == []


@pytest.mark.parametrize("isa", [isa for isa in FUSED[1:] if isa not in PAIRWISE])
@pytest.mark.parametrize(("name", "kind"), [("llama", "bf16"), ("llama", "floats")])
def test_same_bits_of_bf16_where_it_is_widened(isa: str, name: str, kind: str) -> None:
    first = results(FUSED[0], name, kind, "bf16")
    assert differing(first, list(range(64)), results(isa, name, kind, "bf16")) == []


def test_another_scale_is_noticed() -> None:
    """The negative control: one bit of one scale of one matrix, in one row of weights."""
    from specee.backends.cpu import CpuBackend

    bits = []
    for change in (0, 1):
        model = random_model(SHAPES["aligned"], seed=21, kind="q4_0")
        model.blocks["q", 0][0, 0] ^= change
        backend = CpuBackend(model.config, model.slabs(), "packed", model.formats, threads=1)
        sequence = backend.sequence(64)
        slots = list(sequence.append(tokens_of(model)))
        backend.advance([(sequence, slots)], model.config.num_layers)
        bits.append(read(backend, sequence, slots))
    assert "logits" in differing(bits[0], list(range(64)), bits[1])
