"""The full model's tokens: greedy, or drawn with noise that depends on seed, position and token alone.

    token[r] = argmax_v l[r, v]                                where temperature[r] = 0
    token[r] = argmax_v l[r, v] / temperature[r] + g[r, v]     otherwise, g of noise.py

The lowest id wins among equals. Scores and noise are float64, as in specee/sampling.py. Logits are those
after penalties and filters: -inf leaves a token out. A draft is accepted when it is this token
(acceptance.py), so drafts change nothing about what is drawn.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from specee.errors import KernelArgumentError

from . import checks
from .launch import launch
from .noise import gumbel_noise

BLOCK, TILES = 512, 8


@triton.jit
def best_kernel(
    logits, temperatures, seeds, positions, scores, tokens, vocab,
    SAMPLED: tl.constexpr, BLOCK: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """The best of BLOCK * TILES tokens of a row."""
    row = tl.program_id(0).to(tl.int64)
    split = tl.program_id(1)
    lane = tl.arange(0, BLOCK)
    first = split * (BLOCK * TILES)
    score = tl.full([BLOCK], float("-inf"), tl.float64)
    token = first + lane
    for base in range(first, tl.minimum(first + BLOCK * TILES, vocab), BLOCK):
        candidate = base + lane
        value = tl.load(logits + row * vocab + candidate, mask=candidate < vocab, other=float("-inf")).to(
            tl.float64
        )
        if SAMPLED:
            temperature = tl.load(temperatures + row)
            noise = gumbel_noise(tl.load(seeds + row), tl.load(positions + row), base, BLOCK)
            greedy = temperature == 0.0
            value = tl.where(greedy, value, value / tl.where(greedy, 1.0, temperature) + noise)
        better = value > score
        token = tl.where(better, candidate, token)
        score = tl.where(better, value, score)
    best = tl.max(score, axis=0)
    splits = tl.num_programs(1)
    tl.store(scores + row * splits + split, best)
    tl.store(tokens + row * splits + split, tl.min(tl.where(score == best, token, 2147483647), axis=0))


@triton.jit
def choose_kernel(scores, tokens, out, splits, PADDED: tl.constexpr):
    """The best of a row's splits."""
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, PADDED)
    score = tl.load(scores + row * splits + lane, mask=lane < splits, other=float("-inf"))
    token = tl.load(tokens + row * splits + lane, mask=lane < splits, other=2147483647)
    best = tl.max(score, axis=0)
    tl.store(out + row, tl.min(tl.where(score == best, token, 2147483647), axis=0))


def draw_tokens(
    logits: torch.Tensor,
    temperatures: torch.Tensor | None = None,
    seeds: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """One token a row.

    Args:
        logits: (R, vocab) float32.
        temperatures: (R,) float64, 0 for greedy rows; None: all rows are greedy.
        seeds: (R,) int64, given with temperatures.
        positions: (R,) int64, of the tokens to draw; given with temperatures.

    Returns:
        (R,) int32.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("logits", logits, (None, None), (torch.float32,))
    rows, vocab = logits.shape
    checks.size("vocabulary", vocab, 1, 1 << 24)
    on = {"logits": logits}
    if temperatures is not None:
        given = {"temperatures": temperatures, "seeds": seeds, "positions": positions}
        for name, value in given.items():
            if value is None:
                raise KernelArgumentError(f"{name} is None: temperatures need seeds and positions; give all")
            checks.tensor(name, value, (rows,), (torch.float64 if name == "temperatures" else torch.int64,))
            on[name] = value
    checks.device(**on)
    splits = triton.cdiv(vocab, BLOCK * TILES)
    scores = torch.empty((rows, splits), dtype=torch.float64, device=logits.device)
    tokens = torch.empty((rows, splits), dtype=torch.int32, device=logits.device)
    noise = (logits, logits, logits) if temperatures is None else (temperatures, seeds, positions)
    launch(
        best_kernel, (rows, splits), logits, *noise, scores, tokens, vocab,
        SAMPLED=temperatures is not None, BLOCK=BLOCK, TILES=TILES,
    )  # fmt: skip
    out = torch.empty(rows, dtype=torch.int32, device=logits.device)
    launch(
        choose_kernel, (rows,), scores, tokens, out, splits, PADDED=triton.next_power_of_2(splits), warps=1
    )
    return out
