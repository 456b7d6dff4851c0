"""Shadow agreement: all layers' states of a round at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from specee.triton_kernels.shadow import shadow_agreement

from .. import torch_references as reference
from ..models import MODELS
from .cases import ROUNDED, Case, measure
from .gpu import Gpu

EPS, _SEED = 1e-5, 12


@torch.inference_mode()
@pytest.mark.parametrize("rows", [32, 192])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_shadow(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    shape = MODELS[model]
    torch.manual_seed(_SEED)
    head = torch.randn(shape.vocab, shape.hidden, device="cuda").bfloat16() / shape.hidden**0.5
    norm = torch.ones(shape.hidden, device="cuda").bfloat16()
    states = torch.randn(rows, shape.hidden, device="cuda")
    verified = torch.randint(0, shape.vocab, (rows,), dtype=torch.int32, device="cuda")

    def theirs(_: int) -> torch.Tensor:
        logits = torch.nn.functional.rms_norm(states.bfloat16(), norm.shape, norm, EPS) @ head.T
        probability, token = torch.softmax(logits.float(), -1).max(-1)
        torch.eq(token, verified)
        return probability

    normed = reference.rms_norm(states, norm, EPS).bfloat16()
    logits = torch.cat([(normed.float() @ part.float().T).double() for part in head.split(8192)], 1)
    case = Case(
        op="shadow", model=model, stored="bf16", rows=rows,
        ours=lambda _: shadow_agreement(states, norm, head, verified, eps=EPS), theirs=theirs,
        expected=torch.softmax(logits, -1).amax(-1), picked=lambda result: result.probability,
        moved=head.nbytes + states.nbytes, within=ROUNDED,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)
