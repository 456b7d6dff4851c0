"""What reads and writes the cache: RoPE with append, attention over scattered slots, compaction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from specee.triton_kernels.attention import decode_attention
from specee.triton_kernels.compaction import compact
from specee.triton_kernels.rope_cache import rope_append

from .. import torch_references as reference
from ..models import MODELS
from .cases import ROUNDED, Case, measure
from .gpu import Gpu

_SEED = 14


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("context", [128, 1024, 8192])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_attention(benchmark: Any, gpu: Gpu, turns: int, model: str, context: int, rows: int) -> None:
    """Rows of one text that share all their ancestors; torch has them in one piece, we by slot."""
    shape = MODELS[model]
    torch.manual_seed(_SEED)
    keys, values = torch.randn(2, context, shape.kv_heads, shape.head_dim, device="cuda").bfloat16()
    q = torch.randn(rows, shape.heads, shape.head_dim, device="cuda").bfloat16()
    slots = torch.randperm(context, device="cuda", dtype=torch.int32)
    table = slots.expand(rows, -1).contiguous()
    lengths = torch.full((rows,), context, dtype=torch.int32, device="cuda")
    scale = shape.head_dim**-0.5
    ordered = [tensor[slots].transpose(0, 1)[None].contiguous() for tensor in (keys, values)]
    queries = q.transpose(0, 1)[None].contiguous()

    def theirs(_: int) -> torch.Tensor:
        attend = torch.nn.functional.scaled_dot_product_attention
        return attend(queries, *ordered, scale=scale, enable_gqa=True)[0].transpose(0, 1)

    order = [slots.tolist()] * rows
    case = Case(
        op=f"attention at {context}", model=model, stored="bf16", rows=rows,
        ours=lambda _: decode_attention(q, keys, values, table, lengths, scale=scale), theirs=theirs,
        expected=reference.attention(q, keys, values, order, scale), moved=2 * keys.nbytes + 2 * q.nbytes,
        within=ROUNDED,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 8, 64])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_rope_append(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    shape, slots = MODELS[model], 1024
    heads, kv, dim = shape.heads, shape.kv_heads, shape.head_dim
    torch.manual_seed(_SEED)
    qkv = torch.randn(rows, heads + 2 * kv, dim, device="cuda")
    angles = torch.rand(slots, dim // 2, device="cuda") * 6
    cos, sin = angles.cos(), angles.sin()
    at = torch.arange(rows, device="cuda") + 100
    keys, values = torch.zeros(2, slots, kv, dim, device="cuda").bfloat16()
    rotated = reference.rope(qkv[:, : heads + kv], cos[at], sin[at])

    def theirs(_: int) -> torch.Tensor:
        x = qkv[:, : heads + kv]
        c, s = (value[at].repeat(1, 2)[:, None] for value in (cos, sin))
        first, second = x.chunk(2, -1)
        turned = (x * c + torch.cat([-second, first], -1) * s).bfloat16()
        keys[at] = turned[:, heads:]
        values[at] = qkv[:, heads + kv :].bfloat16()
        return turned[:, :heads]

    case = Case(
        op="rope_append", model=model, stored="bf16", rows=rows,
        ours=lambda _: rope_append(qkv, at, at, cos, sin, keys, values), theirs=theirs,
        expected=rotated[:, :heads], moved=qkv.nbytes * 3 // 2, within=ROUNDED,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [4, 16])
@pytest.mark.parametrize("model", ["Llama-2-7B", "Llama-3-8B"])
def test_compaction(benchmark: Any, gpu: Gpu, turns: int, model: str, rows: int) -> None:
    """Every other row of a tree, in all layers; the same again each call, since slots move onto themselves
    once."""
    shape, layers, slots, first = MODELS[model], 32, 512, 200
    torch.manual_seed(_SEED)
    caches = torch.randn(2, layers, slots, shape.kv_heads, shape.head_dim, device="cuda").bfloat16()
    sources = torch.arange(rows, device="cuda", dtype=torch.int32) * 2 + first + rows
    index, target = sources.long(), slice(first, first + rows)
    expected = caches[:, :, index].double()

    def ours(_: int) -> torch.Tensor:
        compact(caches[0], caches[1], sources, first)
        return caches[:, :, target]

    def theirs(_: int) -> torch.Tensor:
        caches[:, :, target] = caches[:, :, index]
        return caches[:, :, target]

    case = Case(
        op="compaction", model=model, stored="bf16", rows=rows, ours=ours, theirs=theirs, expected=expected,
        moved=2 * 2 * expected.numel(), within=0.0,
    )  # fmt: skip
    measure(benchmark, gpu, case, turns)
