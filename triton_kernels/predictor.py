"""The fused exit predictor: may this row leave at this layer?

    z = candidate logits (scoring.py)          p = softmax(z) over the k candidates
    d = p - p of the last checked layer        (p itself where none was checked)
    a = relu(W1 [z; p; d] + b1)                3k -> inner
    e = sigmoid(w2 . a + b2)                   exit where e > threshold

(SpecEE, arXiv 2504.08850, section 4.) One launch, one program a row: at 4096 x 4 the candidates' rows are 32
KB in bf16 and the first layer of the MLP 24 KB, which one multiprocessor reads in less time than a second
launch or a barrier between programs takes; rows beside it have multiprocessors of their own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch
from .scoring import blocks, candidate_logits, check_head

MAX_INNER = 1024


class PredictorWeights(NamedTuple):
    """One layer's MLP: w1 (inner, 3k), b1 (inner,), w2 (inner,), b2 (1,).

    Columns of w1 are those of logits, of probabilities, of changes.
    """

    w1: torch.Tensor
    b1: torch.Tensor
    w2: torch.Tensor
    b2: torch.Tensor


class Prediction(NamedTuple):
    """logits and probabilities (R, k) float32; exit_probability (R,) float32; leave (R,) bool."""

    logits: torch.Tensor
    probabilities: torch.Tensor
    exit_probability: torch.Tensor
    leave: torch.Tensor


@triton.jit
def predictor_kernel(
    hidden, norm, head, ids, previous, w1, b1, w2, b2, logits, probabilities, chances, leaves, eps, threshold,
    COUNT: tl.constexpr, INNER: tl.constexpr, INNER_PADDED: tl.constexpr, HAS_PREVIOUS: tl.constexpr,
    SIZE: tl.constexpr, BLOCK: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, PADDED)
    valid = lane < COUNT
    at = row * COUNT + lane
    token = tl.load(ids + at, mask=valid, other=0)
    z = candidate_logits(hidden + row * SIZE, norm, head, token, valid, eps, SIZE, BLOCK, PADDED)
    top = tl.max(tl.where(valid, z, float("-inf")), axis=0)
    weight = tl.where(valid, tl.exp(z - top), 0.0)
    p = weight / tl.sum(weight, axis=0)
    change = p
    if HAS_PREVIOUS:
        change = p - tl.load(previous + at, mask=valid, other=0.0)

    inner = tl.arange(0, INNER_PADDED)
    real = inner < INNER
    both = real[:, None] & valid[None, :]
    first = w1 + inner[:, None] * (3 * COUNT) + lane[None, :]
    by_logit = tl.load(first, mask=both, other=0.0).to(tl.float32)
    by_probability = tl.load(first + COUNT, mask=both, other=0.0).to(tl.float32)
    by_change = tl.load(first + 2 * COUNT, mask=both, other=0.0).to(tl.float32)
    terms = by_logit * z[None, :] + by_probability * p[None, :] + by_change * change[None, :]
    a = tl.sum(terms, axis=1) + tl.load(b1 + inner, mask=real, other=0.0).to(tl.float32)
    a = tl.where(a < 0.0, 0.0, a)  # keeps NaN, where a maximum with zero would not
    out = tl.sum(a * tl.load(w2 + inner, mask=real, other=0.0).to(tl.float32), axis=0)
    chance = 1.0 / (1.0 + tl.exp(-(out + tl.load(b2).to(tl.float32))))

    tl.store(logits + at, z, mask=valid)
    tl.store(probabilities + at, p, mask=valid)
    tl.store(chances + row, chance)
    tl.store(leaves + row, chance > threshold)


def predict_exit(
    hidden: torch.Tensor,
    norm: torch.Tensor,
    head: torch.Tensor,
    ids: torch.Tensor,
    previous: torch.Tensor | None,
    weights: PredictorWeights,
    *,
    eps: float,
    threshold: float = 0.5,
) -> Prediction:
    """Score each row's candidates and decide whether it leaves. A row with a NaN stays.

    Args:
        hidden: (R, hidden) float, R 1 to 64: outputs of the checked layer.
        norm: (hidden,) float, weight of the final RMSNorm.
        head: (vocab, hidden) float, the LM head.
        ids: (R, k) int, k 1 to 16: candidate tokens of each row.
        previous: (R, k) float32, probabilities at the last checked layer; None at the first.
        weights: the layer's MLP, inner up to 1024.
        eps: of the norm.
        threshold: a row leaves above it.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    check_head(hidden, norm, head)
    rows, count = hidden.shape[0], ids.shape[-1]
    checks.tensor("ids", ids, (rows, None), checks.INTEGERS)
    checks.size("rows of hidden", rows, 1, checks.MAX_ROWS)
    checks.size("candidates", count, 1, checks.MAX_CANDIDATES)
    inner = weights.w1.shape[0]
    checks.size("inner size of the predictor", inner, 1, MAX_INNER)
    wanted = {"w1": (inner, 3 * count), "b1": (inner,), "w2": (inner,), "b2": (1,)}
    for name, value in weights._asdict().items():
        checks.tensor(name, value, wanted[name], checks.FLOATS)
    if previous is not None:
        checks.tensor("previous", previous, (rows, count), (torch.float32,))
    before = {} if previous is None else {"previous": previous}
    checks.device(hidden=hidden, norm=norm, head=head, ids=ids, **weights._asdict(), **before)
    numbers = torch.empty((2, rows, count), dtype=torch.float32, device=hidden.device)
    chances = torch.empty(rows, dtype=torch.float32, device=hidden.device)
    leaves = torch.empty(rows, dtype=torch.bool, device=hidden.device)
    earlier = numbers[1] if previous is None else previous  # not read where there is none
    launch(
        predictor_kernel, (rows,), hidden, norm, head, ids, earlier, *weights,
        *numbers, chances, leaves, eps, threshold, COUNT=count, HAS_PREVIOUS=previous is not None,
        INNER=inner, INNER_PADDED=triton.next_power_of_2(inner), SIZE=hidden.shape[1],
        **blocks(count), warps=8,
    )  # fmt: skip
    return Prediction(numbers[0], numbers[1], chances, leaves)
