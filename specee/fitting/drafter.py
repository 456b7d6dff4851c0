"""A drafter block in torch, for training: one decoder layer that guesses the token after the next.

EAGLE (Li et al., "EAGLE: Speculative sampling requires rethinking feature uncertainty", ICML 2024) gives one
layer the embedding of the newest token and the model's hidden state from before it. As in EAGLE-3 (Li et
al., 2025) the state is fused from several layers, and training unrolls the drafter over its own outputs,
since that is what it sees after its first draft.

At position t, with f the fused states of position t-1 (or, in an unrolled step, the drafter's own output
there) and e the embedding of token t::

    x = fc [rms_norm(e), rms_norm(f)]          (hidden,)
    g = layer(x), a Llama layer with keys and values of its own
    logits of token t+1 = head(final_norm(g)), the model's own, over the draft vocabulary
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from specee.backends.reference_math import inverse_frequencies
from specee.models.drafter_parts import DrafterParts
from specee.types import ModelConfig

_MATRICES = ("fuse", "fc", "q", "k", "v", "o", "gate", "up", "down")
_PARTS = (*_MATRICES, "embed_norm", "fused_norm", "attn_norm", "mlp_norm")


@dataclass(frozen=True)
class Shape:
    """Of a drafter: the layers of the model whose outputs it reads, 1..num_layers, ascending.

    ``plain``: EAGLE's block, which reads one (:mod:`specee.models.drafter_parts`).
    """

    config: ModelConfig
    layers: tuple[int, ...]
    plain: bool = False


class Norm(nn.Module):
    """RMSNorm, in fp32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """``x * rsqrt(mean(x^2) + eps) * weight`` over the last axis."""
        x = x.float()
        normed: Tensor = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight
        return normed


class Drafter(nn.Module):
    """See the module. Texts are batches padded on the right: (texts, length, ...)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        config = shape.config
        hidden, eps = config.hidden_size, config.norm_eps
        self.shape = shape
        self.state_norms = nn.ModuleList([Norm(hidden, eps) for _ in shape.layers])
        self.fc = nn.Linear(2 * hidden, hidden, bias=shape.plain)
        self.mlp_norm = Norm(hidden, eps)
        if not shape.plain:
            self.fuse = nn.Linear(len(shape.layers) * hidden, hidden, bias=False)
            self.embed_norm, self.fused_norm = Norm(hidden, eps), Norm(hidden, eps)
            self.attn_norm = Norm(hidden, eps)
        self.q = nn.Linear(hidden, config.q_dim, bias=False)
        self.k = nn.Linear(hidden, config.kv_dim, bias=False)
        self.v = nn.Linear(hidden, config.kv_dim, bias=False)
        self.o = nn.Linear(config.q_dim, hidden, bias=False)
        self.gate = nn.Linear(hidden, config.intermediate_size, bias=False)
        self.up = nn.Linear(hidden, config.intermediate_size, bias=False)
        self.down = nn.Linear(config.intermediate_size, hidden, bias=False)

    def fused(self, states: Tensor) -> Tensor:
        """(..., layers, hidden) states of the model -> (..., hidden)."""
        normed = [norm(states[..., i, :]) for i, norm in enumerate(self.state_norms)]
        fused: Tensor = normed[0] if self.shape.plain else self.fuse(torch.cat(normed, -1))
        return fused

    def headed(self, outputs: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
        """What the head takes for outputs of the block; ``norm`` is the model's final one."""
        return outputs.float() if self.shape.plain else norm(outputs)

    def forward(self, embeddings: Tensor, fused: Tensor, steps: int) -> list[Tensor]:
        """What ``steps`` unrolled steps give.

        ``embeddings`` (texts, length, hidden) of tokens, ``fused`` (texts, length, hidden) of the position
        before each. Output i of step k guesses token i + 1 from true states of position i - k - 1 and those
        before it; it means something from position k + 1 on.
        """
        length = embeddings.shape[1]
        rotation = _rotation(self.shape.config, length, embeddings.device)
        embedded = self._normed("embed_norm", embeddings)
        outputs: list[Tensor] = []
        memory: list[tuple[Tensor, Tensor]] = []
        before = fused
        for _ in range(steps):
            x = self.fc(torch.cat((embedded, self._normed("fused_norm", before)), -1))
            outputs.append(self._layer(x, rotation, memory))
            before = functional.pad(outputs[-1], (0, 0, 1, 0))[:, :-1]
        return outputs

    def _normed(self, name: str, x: Tensor) -> Tensor:
        normed: Tensor = x if self.shape.plain else getattr(self, name)(x)
        return normed

    def _layer(
        self, x: Tensor, rotation: tuple[Tensor, Tensor], memory: list[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """One step through the layer; its keys and values join those of earlier ones in ``memory``."""
        config = self.shape.config
        normed = self._normed("attn_norm", x)
        q, k, v = (_heads(part(normed), config.head_dim) for part in (self.q, self.k, self.v))
        repeat = config.num_heads // config.num_kv_heads
        q = _rotated(q, rotation)
        memory.append((_rotated(k, rotation).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)))
        x = x + self.o(_attend(q, memory).transpose(1, 2).flatten(2))
        normed = self.mlp_norm(x)
        after: Tensor = x + self.down(functional.silu(self.gate(normed)) * self.up(normed))
        return after

    def parts(self) -> DrafterParts:
        """The weights as a speculator file holds them."""
        arrays = {name: self._part(name) for name in _PARTS}
        state_norms = np.stack([each.detach().float().numpy() for each in self.state_norms.parameters()])
        if self.shape.plain:
            arrays["fc_bias"] = self.fc.bias.detach().float().numpy()
        return DrafterParts(self.shape.layers, state_norms=state_norms, **arrays)

    def _part(self, name: str) -> npt.NDArray[np.float32]:
        if not hasattr(self, name):
            return np.zeros(0, np.float32)
        weight: npt.NDArray[np.float32] = getattr(self, name).weight.detach().float().numpy()
        return weight

    @classmethod
    def of(cls, parts: DrafterParts, config: ModelConfig) -> Drafter:
        """The drafter that a speculator file holds, for the model with that configuration."""
        own = replace(config, intermediate_size=len(parts.gate))
        drafter = cls(Shape(own, parts.layers, parts.plain))
        with torch.no_grad():
            for name, array in parts.arrays():
                if name in _PARTS:
                    getattr(drafter, name).weight.copy_(torch.from_numpy(array))
            if parts.plain:
                drafter.fc.bias.copy_(torch.from_numpy(parts.fc_bias))
            for each, norm in zip(drafter.state_norms.parameters(), parts.state_norms, strict=True):
                each.copy_(torch.from_numpy(norm))
        return drafter


def _attend(q: Tensor, memory: Seq[tuple[Tensor, Tensor]]) -> Tensor:
    """Query of step s at position t: true entries up to t - s, then what each later step left on the way.

    (texts, heads, length, head_dim) all.
    """
    step, length = len(memory) - 1, q.shape[2]
    first, values = memory[0]
    scale = q.shape[-1] ** -0.5
    past = torch.ones(length, length, dtype=torch.bool, device=q.device).tril(-step)
    scores = [(q @ first.transpose(-1, -2) * scale).float().masked_fill(~past, -torch.inf)]
    shifted = [
        tuple(functional.pad(part, (0, 0, step - i, 0))[:, :, :length] for part in memory[i])
        for i in range(1, step + 1)
    ]
    scores += [((q * k).sum(-1, keepdim=True) * scale).float() for k, _ in shifted]
    weights = torch.softmax(torch.cat(scores, -1), -1)
    weights = weights.nan_to_num().to(values.dtype)  # before position ``step`` there is nothing to see
    mixed = weights[..., :length] @ values
    for i, (_, v) in enumerate(shifted):
        mixed = mixed + weights[..., length + i : length + i + 1] * v
    return mixed


def _heads(x: Tensor, head_dim: int) -> Tensor:
    """(texts, length, heads * head_dim) -> (texts, heads, length, head_dim)."""
    return x.view(*x.shape[:-1], -1, head_dim).transpose(1, 2)


def _rotation(config: ModelConfig, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines: (length, head_dim / 2) each."""
    speeds = inverse_frequencies(config.rope, config.head_dim).to(device)
    angles = torch.arange(length, device=device).float()[:, None] * speeds
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate-half, as :func:`.reference_math.rotate`."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
