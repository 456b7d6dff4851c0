"""Candidate scoring, merged and grouped, and the fused exit predictor, at the sizes of SpecEE's checks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from specee.triton_kernels.grouped import score_nodes
from specee.triton_kernels.predictor import PredictorWeights, predict_exit
from specee.triton_kernels.scoring import score_candidates

from .. import torch_references as reference
from ..models import MODELS
from .cases import Case, measure
from .gpu import Gpu

EPS, K, INNER = 1e-5, 4, 512
COPIES = 32  # sets of candidates: their rows are elsewhere in a head that is larger than the cache
_SEED = 11

Tensor = torch.Tensor


class Problem:
    """A head, and states with ids for each of COPIES calls."""

    def __init__(self, model: str, rows: int) -> None:
        shape, self.model, self.rows = MODELS[model], model, rows
        torch.manual_seed(_SEED)
        self.head = torch.randn(shape.vocab, shape.hidden, device="cuda").bfloat16() / shape.hidden**0.5
        self.norm = torch.randn(shape.hidden, device="cuda").bfloat16()
        self.hidden = torch.randn(rows, shape.hidden, device="cuda")
        self.ids = torch.randint(0, shape.vocab, (COPIES, rows, K), dtype=torch.int32, device="cuda")
        sizes = [(INNER, 3 * K), (INNER,), (INNER,), (1,)]
        self.mlp = PredictorWeights(*(torch.randn(size, device="cuda") / size[-1] ** 0.5 for size in sizes))
        self.previous = torch.softmax(torch.randn(rows, K, device="cuda"), -1)

    def moved(self, sets: int) -> int:
        return (sets * K + 1) * self.head.shape[1] * 2 + self.hidden.nbytes

    def normed(self) -> Tensor:
        return torch.nn.functional.rms_norm(self.hidden.bfloat16(), self.norm.shape, self.norm, EPS)

    def logits(self, ids: Tensor) -> Tensor:
        """As one would write it in torch, ids (k,) or (R, k)."""
        rows = self.head[ids]
        if ids.dim() == 1:
            return self.normed() @ rows.T
        return torch.einsum("rh,rkh->rk", self.normed(), rows)

    def chance(self, ids: Tensor) -> Tensor:
        z = self.logits(ids).float()
        p = torch.softmax(z, -1)
        w1, b1, w2, b2 = self.mlp
        features = torch.cat([z, p, p - self.previous], -1)
        return torch.sigmoid(torch.relu(features @ w1.T + b1) @ w2 + b2)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_scoring(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    p = Problem(model, rows)
    ids = p.ids[:, 0].contiguous()
    case = Case(
        op="scoring", model=model, stored="bf16", rows=rows,
        ours=lambda i: score_candidates(p.hidden, p.norm, p.head, ids[i], eps=EPS),
        theirs=lambda i: p.logits(ids[i]),
        expected=reference.candidate_logits(p.hidden, p.norm, p.head, ids[0], EPS),
        moved=p.moved(1), copies=COPIES,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 8, 60])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_grouped(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    p = Problem(model, rows)
    case = Case(
        op="grouped", model=model, stored="bf16", rows=rows,
        ours=lambda i: score_nodes(p.hidden, p.norm, p.head, p.ids[i], eps=EPS),
        theirs=lambda i: p.logits(p.ids[i]),
        expected=reference.candidate_logits(p.hidden, p.norm, p.head, p.ids[0], EPS),
        moved=p.moved(rows), copies=COPIES,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_predictor(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    p = Problem(model, rows)
    logits = reference.candidate_logits(p.hidden, p.norm, p.head, p.ids[0], EPS)
    case = Case(
        op="predictor", model=model, stored="bf16", rows=rows,
        ours=lambda i: predict_exit(p.hidden, p.norm, p.head, p.ids[i], p.previous, p.mlp, eps=EPS),
        theirs=lambda i: p.chance(p.ids[i]),
        expected=reference.exit_chance(logits, p.previous, p.mlp).chance,
        picked=lambda result: result.exit_probability,
        moved=p.moved(rows) + p.mlp.w1.nbytes, copies=COPIES,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)
