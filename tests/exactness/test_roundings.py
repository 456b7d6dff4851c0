"""The inputs of products are rounded where and how it is promised, and nowhere else, on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from specee.backends import reference_math
from specee.backends.protocol import Backend
from tests.engines import Engine, all_engines, native_engines
from tests.oracle import expected, in_blocks
from tests.random_model import SHAPES, RandomModel, random_model

CASES = [
    ("llama", "fp32", "bf16"),
    ("llama", "fp32", "fp16"),
    ("llama", "bf16", "fp32"),
    ("llama", "bf16", "bf16"),
    ("llama", "int8", "fp32"),
    ("llama", "int4", "fp16"),
    ("llama", "floats", "fp32"),
    ("odd", "int8", "fp32"),
    ("aligned", "q4_0", "fp32"),
    ("aligned", "mixed", "fp16"),
    ("wide", "k-quants", "fp32"),
]
PATHS = [tuple(range(seed, seed + 3)) for seed in range(0, 64, 4)]


def agreeing(backend: Backend, model: RandomModel, cache: str) -> int:
    """How many of PATHS agree with the oracle to fp32 accuracy."""
    agree = 0
    for tokens in PATHS:
        sequence = backend.sequence(3, cache)
        work = [(sequence, sequence.append(tokens))]
        backend.advance(work, model.config.num_layers)
        wanted, logits = expected(model, tokens, cache), backend.logits(work)
        agree += all(wanted.error("logits", p, logits[p]) <= wanted.tight["logits"] for p in range(3))
    return agree


@pytest.mark.parametrize(("name", "weights", "cache"), CASES)
@pytest.mark.parametrize("engine", all_engines())
def test_roundings_are_where_promised(engine: Engine, name: str, weights: str, cache: str) -> None:
    """Most short paths agree to fp32 accuracy, which one rounding too many or too few would break for all."""
    model = random_model(SHAPES[name], seed=3, kind=weights)
    assert agreeing(engine.load(model, weights), model, cache) > len(PATHS) // 2


def sixteens(x: torch.Tensor) -> torch.Tensor:
    """Blocks of the wrong size."""
    blocks = torch.nn.functional.pad(x, (0, -len(x) % 16)).view(-1, 16)
    scale = blocks.abs().amax(dim=1, keepdim=True) / 127
    return (torch.round(blocks / scale) * scale).view(-1)[: len(x)]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x,
        sixteens,
        lambda x: reference_math.product_input(x, "BF16"),
        lambda x: torch.trunc(x / (x.abs().max() / 127)) * (x.abs().max() / 127),
    ],
    ids=["not rounded", "blocks of 16", "bf16", "towards zero"],
)
def test_other_roundings_are_noticed(wrong: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a backend that rounds inputs of quantised matrices in another way."""
    model = random_model(SHAPES["aligned"], seed=3, kind="mixed")
    backend = Engine("reference").load(model, "mixed")
    monkeypatch.setattr(reference_math, "in_blocks", wrong)
    assert agreeing(backend, model, "fp32") == 0


def test_rounding_where_none_is_promised_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """F16 matrices take fp32 inputs."""
    model = random_model(SHAPES["llama"], seed=3, kind="floats")
    backend = Engine("reference").load(model, "floats")
    original = reference_math.product_input
    monkeypatch.setattr(reference_math, "product_input", lambda x, _: original(x, "BF16"))
    assert agreeing(backend, model, "fp32") == 0


def rows_to_round() -> np.ndarray:
    """Blocks with ties, zeros, denormals, single large values, and ordinary numbers."""
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (64, 32)) * 10.0 ** rng.uniform(-20, 20, (64, 1))
    x[0] = 0
    x[1] = np.arange(32) - 16
    x[2] = 127
    x[2, 1:] = np.arange(31) + 0.5  # scale 1: every other value is a tie
    x[3], x[4], x[5] = 1e-31, 1e-42, 9.9e-31
    x[6, 3], x[7, 3] = 3e38, -3e38
    return x.astype(np.float32)


def test_the_reference_rounds_as_the_oracle_does_to_the_bit() -> None:
    for columns in (1, 2000, 2048):
        x = rows_to_round().reshape(-1)[:columns]
        q, scale = in_blocks(np.pad(x, (0, -columns % 32))[None])
        wanted = (q.reshape(-1, 32).astype(np.float32) * scale.reshape(-1, 1)).reshape(-1)[:columns]
        assert np.array_equal(reference_math.in_blocks(torch.from_numpy(x)).numpy(), wanted)
    assert q.dtype == np.float32
    assert np.abs(q).max() == 127


@pytest.mark.parametrize("engine", native_engines())
def test_the_kernels_round_as_the_oracle_does_to_the_bit(engine: Engine) -> None:
    from specee._cpu import ops

    for columns in (1, 31, 33, 2000, 2048):
        x = rows_to_round().reshape(-1)[:columns]
        q, scale = in_blocks(np.pad(x, (0, -columns % 32))[None])
        found, scales = ops.quantize_row(np.ascontiguousarray(x), engine.isa)
        assert np.array_equal(found.astype(np.float32)[:columns], q[0, :columns]), columns
        assert np.array_equal(scales.view(np.uint32), scale[0].view(np.uint32)), columns


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    x = torch.ones(64)
    x[40] = value
    rounded = reference_math.in_blocks(x)
    assert torch.equal(rounded[:32], torch.ones(32))
    assert not torch.isfinite(rounded[40])
