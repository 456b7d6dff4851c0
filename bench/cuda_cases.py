"""What ``python -m bench.cuda_kernels`` runs: CUDA kernels at the shapes of real models, and torch's way.

A case is a list of calls that read different weights, so that a device's cache does not hold them in turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from specee.cuda import acceptance, attention, linear, packing, scoring
from specee.cuda.launcher import Launcher
from specee.cuda.tiles import attention_splits, vocab_splits

Call = Callable[[], Any]
Put = Callable[[np.ndarray], Any]


@dataclass(frozen=True)
class Case:
    """``bytes_read``: what one call has to read at least. ``torch``: the same in torch, where plain."""

    name: str
    calls: list[Call]
    bytes_read: int
    torch: list[Call] = field(default_factory=list)


@dataclass(frozen=True)
class Shapes:
    """Sizes of the cases; the defaults are Llama-2-7B's, attention and vocabulary of Llama-3-8B."""

    hidden: int = 4096
    vocab: int = 32000
    nodes: int = 60
    products: tuple[tuple[int, int], ...] = ((4096, 4096), (11008, 4096), (4096, 11008))
    rows: tuple[int, ...] = (1, 6, 64)
    copies: int = 8
    heads: tuple[int, int, int] = (32, 8, 128)
    lengths: tuple[int, ...] = (1024, 8192)
    large_vocab: int = 128256


def numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Random fp32, drawn once for a part of it: these need only not be constant."""
    size = int(np.prod(shape))
    part = rng.standard_normal(min(size, 65521)).astype(np.float32)
    return np.resize(part, size).reshape(shape)


def bf16(x: np.ndarray) -> np.ndarray:
    """Bits of bf16, rounded down."""
    return (x.view(np.uint32) >> 16).astype(np.uint16)


def scoring_cases(launcher: Launcher, put: Put, shapes: Shapes, rng: np.random.Generator) -> Iterator[Case]:
    """Predictor and scoring for one row, and groups of candidates for the nodes of a tree."""
    count, units = 4, 512
    norm, weights = (
        put(np.ones(shapes.hidden, np.float32)),
        put(bf16(numbers(rng, shapes.vocab, shapes.hidden))),
    )
    head = scoring.Head(norm, weights, 1e-5)
    mlp = scoring.Mlp(
        *(put(numbers(rng, *shape)) for shape in ((3 * count, units), (units,), (units,), (1,)))
    )
    for rows in (1, shapes.nodes):
        states = scoring.States(put(numbers(rng, rows, shapes.hidden)))
        tokens = [
            put(rng.integers(0, shapes.vocab, (rows, count)).astype(np.int32)) for _ in range(shapes.copies)
        ]
        out = scoring.Prediction(
            put(np.zeros((rows, count), np.float32)),
            put(np.zeros((rows, count), np.float32)),
            put(np.zeros(rows, np.float32)),
            put(np.zeros(rows, np.int32)),
        )
        size = rows * (count + 2) * shapes.hidden * 2
        yield Case(
            f"predictor and scoring, {rows} rows",
            [
                lambda t=t, s=states, o=out: scoring.exit_predictor(launcher, head, mlp, s, t, o)
                for t in tokens
            ],
            size,
            [lambda t=t, s=states: torch_predictor(head, mlp, s.values, t) for t in tokens],
        )
        yield Case(
            f"candidate scoring, {rows} rows",
            [
                lambda t=t, s=states, o=out: scoring.score_candidates(launcher, head, s, t, o.logits)
                for t in tokens
            ],
            size,
        )


def torch_predictor(head: scoring.Head, mlp: scoring.Mlp, states: Any, tokens: Any) -> Any:
    """The same as a torch expression."""
    import torch

    weights = head.weights.view(torch.bfloat16)
    normed = states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + head.eps) * head.norm
    logits = torch.einsum("rch,rh->rc", weights[tokens.long()], normed.to(torch.bfloat16)).float()
    probabilities = torch.softmax(logits, -1)
    hidden = torch.relu(torch.cat([logits, probabilities, probabilities], -1) @ mlp.up + mlp.up_bias)
    return torch.sigmoid(hidden @ mlp.down + mlp.down_bias) >= 0.5


def linear_cases(launcher: Launcher, put: Put, shapes: Shapes, rng: np.random.Generator) -> Iterator[Case]:
    """Row-linear of every format."""
    for outputs, k in shapes.products:
        matrix = numbers(rng, outputs, k)
        stored = [("bf16", bf16(matrix)), ("int8", packed(matrix, "int8")), ("int4", packed(matrix, "int4"))]
        for kind, weights in stored:
            copies = [placed(put, weights) for _ in range(shapes.copies)]
            for rows in shapes.rows:
                yield linear_case(launcher, put, kind, copies, numbers(rng, rows, k), outputs)


def packed(matrix: np.ndarray, kind: str) -> packing.PackedWeights:
    """Some integers in that format."""
    blocks = (matrix.shape[0], matrix.shape[1] // 32)
    scales = np.full(blocks, 0.01, np.float16)
    if kind == "int8":
        return packing.pack_int8((matrix * 30).astype(np.int8), scales)
    return packing.pack_int4(np.clip(matrix * 3 + 8, 0, 15).astype(np.uint8), scales, -8 * scales)


def placed(put: Put, weights: Any) -> Any:
    """A copy on the device."""
    if isinstance(weights, packing.PackedWeights):
        data, scales = put(weights.data), put(weights.scales)
        return packing.PackedWeights(weights.stored, weights.outputs, weights.k, data, scales)
    return put(weights)


def linear_case(
    launcher: Launcher, put: Put, kind: str, copies: list[Any], x: np.ndarray, outputs: int
) -> Case:
    """One product; activations are prepared beforehand, as they serve several."""
    rows, k = x.shape
    out = put(np.zeros((rows, outputs), np.float32))
    name = f"linear {kind}, {outputs} x {k}, {rows} rows"
    if kind == "bf16":
        there = put(bf16(x))
        return Case(
            name,
            [lambda w=w: linear.linear_bf16(launcher, there, w, out) for w in copies],
            outputs * k * 2,
            [lambda w=w: torch_linear(there, w) for w in copies],
        )
    rows_there = linear.QuantisedRows(
        put(np.zeros((rows, k), np.int8)),
        put(np.ones((rows, k // 32), np.float32)),
        put(np.ones((rows, k // 32), np.float32)),
    )
    linear.quantise_rows(launcher, put(x), rows_there)
    weights = copies[0]
    size = int(np.prod(weights.data.shape)) + 2 * int(np.prod(weights.scales.shape))
    return Case(name, [lambda w=w: linear.linear_packed(launcher, rows_there, w, out) for w in copies], size)


def torch_linear(x: Any, weights: Any) -> Any:
    """The same in torch."""
    import torch

    return torch.nn.functional.linear(x.view(torch.bfloat16), weights.view(torch.bfloat16))


def attention_cases(launcher: Launcher, put: Put, shapes: Shapes, rng: np.random.Generator) -> Iterator[Case]:
    """One row and six over one cache."""
    heads, key_heads, dim = shapes.heads
    for length in shapes.lengths:
        caches = [
            [put(bf16(numbers(rng, length, key_heads, dim))) for _ in range(2)] for _ in range(shapes.copies)
        ]
        for rows in (1, 6):
            splits = attention_splits(length)
            queries, out = (put(numbers(rng, rows, heads, dim)) for _ in range(2))
            slots = np.tile(np.arange(length, dtype=np.int32), (rows, 1))
            paths = attention.Paths(put(slots), put(np.full(rows, length, np.int32)))
            room = attention.Workspace(
                put(np.zeros((rows, heads, splits, dim), np.float32)),
                put(np.zeros((rows, heads, splits), np.float32)),
                put(np.zeros((rows, heads, splits), np.float32)),
            )
            yield Case(
                f"attention, {length} positions, {rows} rows",
                [
                    lambda c=c, q=queries, p=paths, o=out, r=room: attention.attention(
                        launcher, q, *c, p, o, r, scale=dim**-0.5
                    )
                    for c in caches
                ],
                2 * length * key_heads * dim * 2,
            )


def acceptance_cases(
    launcher: Launcher, put: Put, shapes: Shapes, rng: np.random.Generator
) -> Iterator[Case]:
    """Targets of eight rows, greedy and drawn, and the walk down a chain of them."""
    rows, vocab = 8, shapes.large_vocab
    logits = [put(numbers(rng, rows, vocab)) for _ in range(shapes.copies)]
    pieces = acceptance.Pieces(
        put(np.zeros((rows, vocab_splits(vocab)))), put(np.zeros((rows, vocab_splits(vocab)), np.int32))
    )
    chain = np.arange(rows, dtype=np.int32)
    drafts = acceptance.Drafts(put(chain), put(chain - 1), put(np.array([0, rows], np.int32)))
    out = acceptance.Accepted(*(put(np.zeros(size, np.int32)) for size in (rows, rows, 1, 1)))
    for name, temperature in (("greedy", 0.0), ("drawn", 1.0)):
        draws = acceptance.Draws(
            put(np.full(rows, temperature)),
            put(np.ones(rows, np.int64)),
            put(np.arange(rows, dtype=np.int64)),
        )

        def accepted(some: Any, draws: acceptance.Draws = draws) -> None:
            acceptance.target_pieces(launcher, some, draws, pieces)
            acceptance.accept(launcher, pieces, drafts, out)

        calls: list[Call] = [lambda x=x, run=accepted: run(x) for x in logits]
        yield Case(f"targets and acceptance, {name}, {rows} rows of {vocab}", calls, rows * vocab * 4)


def cases(launcher: Launcher, put: Put, shapes: Shapes) -> Iterator[Case]:
    """All of them, one after the other, so that a device holds the weights of one at a time."""
    rng = np.random.default_rng(1)
    for some in (scoring_cases, linear_cases, attention_cases, acceptance_cases):
        yield from some(launcher, put, shapes, rng)
