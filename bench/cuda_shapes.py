"""Models of the sizes that the benches of the CUDA backend measure."""

from __future__ import annotations

from specee.types import ModelConfig, RopeConfig

from .kernels.models import MODELS


def _config(name: str, layers: int, theta: float, positions: int, *, tied: bool = False) -> ModelConfig:
    shape = MODELS[name]
    return ModelConfig(
        family="llama",
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.inner,
        num_layers=layers,
        num_heads=shape.heads,
        num_kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        max_position=positions,
        norm_eps=1e-5,
        rope=RopeConfig(theta=theta),
        windows=(0,) * layers,
        tied_head=tied,
    )


LLAMA_2_7B = _config("Llama-2-7B", 32, 10000.0, 4096)
LLAMA_3_2_1B = _config("Llama-3.2-1B", 16, 500000.0, 8192, tied=True)
LLAMA_3_8B = _config("Llama-3-8B", 32, 500000.0, 8192)
