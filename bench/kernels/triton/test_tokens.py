"""Drawing tokens from logits, and walking trees of drafts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from specee.triton_kernels.acceptance import accept
from specee.triton_kernels.drawing import draw_tokens

from ..models import MODELS
from .cases import Case, measure
from .gpu import Gpu

_SEED = 15


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_drawing(benchmark: Any, gpu: Gpu, turns: int, model: str, sampled: bool, rows: int) -> None:
    """torch draws with its own noise, so only greedy tokens can be compared; tests compare the others."""
    torch.manual_seed(_SEED)
    logits = torch.randn(rows, MODELS[model].vocab, device="cuda")
    logits[:, 77] = 100.0  # wins whatever the noise
    heat = torch.ones(rows, dtype=torch.float64, device="cuda") if sampled else None
    numbers = torch.arange(rows, device="cuda") if sampled else None

    def theirs(_: int) -> torch.Tensor:
        if not sampled:
            return logits.argmax(-1)
        return (logits - torch.empty_like(logits).exponential_().log_()).argmax(-1)

    case = Case(
        op="draw sampled" if sampled else "draw greedy", model=model, stored="fp32", rows=rows,
        ours=lambda _: draw_tokens(logits, heat, numbers, numbers), theirs=theirs,
        expected=torch.full((rows,), 77.0, dtype=torch.float64, device="cuda"),
        moved=logits.nbytes, within=0.0,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [8, 60])
def test_acceptance(benchmark: Any, gpu: Gpu, turns: int, rows: int) -> None:
    """A chain that is accepted whole. Without torch: a walk has no such form there."""
    drafts = torch.arange(rows, dtype=torch.int32, device="cuda")[None]
    counts = torch.full((1,), rows, dtype=torch.int32, device="cuda")
    case = Case(
        op="accept", model="any", stored="int32", rows=rows,
        ours=lambda _: accept(drafts, drafts - 1, drafts + 1, counts), theirs=None,
        expected=torch.tensor([rows - 1.0], dtype=torch.float64, device="cuda"),
        picked=lambda walks: walks.accepted, moved=5 * drafts.nbytes, within=0.0,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)
