"""Published EAGLE heads as files of their own, and an implementation of the paper that computes them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor
from torch.nn import functional

from specee.backends.drafter_parts import stored_rows
from specee.models.blocks import widen


class Eagle(torch.nn.Module):
    """The head by the paper's description, with nothing of ours: whole texts, plain attention, fp32."""

    def __init__(self, config: dict[str, Any], *, bias: bool) -> None:
        super().__init__()
        hidden, inner = config["hidden_size"], config["intermediate_size"]
        self.heads, self.kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
        self.size, self.eps = hidden // self.heads, config["rms_norm_eps"]
        self.theta = config.get("rope_theta", 10000.0)
        linear = torch.nn.Linear
        self.fc = linear(2 * hidden, hidden, bias=bias)
        layer = torch.nn.Module()
        layer.self_attn, layer.mlp = torch.nn.Module(), torch.nn.Module()
        layer.self_attn.q_proj = linear(hidden, self.heads * self.size, bias=False)
        layer.self_attn.k_proj = linear(hidden, self.kv_heads * self.size, bias=False)
        layer.self_attn.v_proj = linear(hidden, self.kv_heads * self.size, bias=False)
        layer.self_attn.o_proj = linear(self.heads * self.size, hidden, bias=False)
        layer.mlp.gate_proj, layer.mlp.up_proj = (
            linear(hidden, inner, bias=False),
            linear(hidden, inner, bias=False),
        )
        layer.mlp.down_proj = linear(inner, hidden, bias=False)
        layer.post_attention_layernorm = torch.nn.Module()
        layer.post_attention_layernorm.weight = torch.nn.Parameter(torch.empty(hidden))
        self.layers = torch.nn.ModuleList([layer])

    def forward(self, embedded: Tensor, features: Tensor) -> Tensor:
        """Embeddings of tokens 1..n, the model's normed states of 0..n-1: (n, hidden) -> the same of 1..n."""
        (layer,) = self.layers
        x = self.fc(torch.cat((embedded, features), -1))
        q = self._turned(layer.self_attn.q_proj(x).view(len(x), self.heads, self.size))
        k = self._turned(layer.self_attn.k_proj(x).view(len(x), self.kv_heads, self.size))
        v = layer.self_attn.v_proj(x).view(len(x), self.kv_heads, self.size)
        each = self.heads // self.kv_heads
        attended = []
        for head in range(self.heads):
            scores = q[:, head] @ k[:, head // each].T / math.sqrt(self.size)
            scores = scores.masked_fill(torch.ones(len(x), len(x)).triu(1).bool(), -math.inf)
            attended.append(scores.softmax(-1) @ v[:, head // each])
        x = x + layer.self_attn.o_proj(torch.cat(attended, -1))
        scale = torch.rsqrt((x * x).mean(-1, keepdim=True) + self.eps)
        normed = x * scale * layer.post_attention_layernorm.weight
        return x + layer.mlp.down_proj(
            functional.silu(layer.mlp.gate_proj(normed)) * layer.mlp.up_proj(normed)
        )

    def _turned(self, x: Tensor) -> Tensor:
        """Rotary embedding: pairs (i, i + size / 2) turned by position * theta^(-2i / size)."""
        half = self.size // 2
        speeds = self.theta ** (-torch.arange(half) * 2.0 / self.size)
        angles = torch.arange(len(x))[:, None, None] * speeds
        first, second = x[..., :half], x[..., half:]
        return torch.cat(
            (first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()), -1
        )


def made(folder: Path, source: Path, *, bias: bool = True, form: str = "safetensors", seed: int = 0) -> Eagle:
    """A random head for the model in ``source``, whose matrices blocks of 8 bits hold as they are."""
    config = json.loads((source / "config.json").read_text())
    rope = config.pop("rope_parameters", None) or {}
    config |= {
        "num_hidden_layers": 1,
        "bias": bias,
        "intermediate_size": 96,
        "rope_theta": rope.get("rope_theta", 10000.0),
    }
    torch.manual_seed(seed)
    eagle = Eagle(config, bias=bias)
    with torch.no_grad():
        for name, values in eagle.named_parameters():
            if values.ndim == 1:
                values.copy_((1.0 if "norm" in name else 0.0) + 0.3 * torch.randn_like(values))
                values.copy_(values.half().float())
            else:
                values.normal_(std=1.2 * values.shape[1] ** -0.5)
                blocks = stored_rows(values.numpy(), "Q8_0")
                values.copy_(torch.from_numpy(widen(blocks, "Q8_0", values.shape[1])).half().float())
    with safetensors.safe_open(source / "model.safetensors", framework="pt") as file:
        embedding = file.get_tensor("model.embed_tokens.weight")
    tensors = {**eagle.state_dict(), "embed_tokens.weight": embedding}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = {name: values.contiguous().clone() for name, values in tensors.items()}
    if form == "safetensors":
        safetensors.torch.save_file(tensors, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / "pytorch_model.bin")
    return eagle
