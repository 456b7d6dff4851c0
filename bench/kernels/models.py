"""The models whose shapes are measured, and the products of a layer of theirs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """One model's sizes."""

    name: str
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int

    @property
    def products(self) -> dict[str, Product]:
        """The matrix products of one token, fused as the engine fuses them."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "qkv": Product(q + 2 * kv, self.hidden),
            "o": Product(self.hidden, q),
            "gate_up": Product(self.inner, self.hidden, swiglu=True),
            "down": Product(self.hidden, self.inner),
            "head": Product(self.vocab, self.hidden),
        }


@dataclass(frozen=True)
class Product:
    """``outputs`` sums over ``k`` inputs each; with ``swiglu``, of two matrices that become one output."""

    outputs: int
    k: int
    swiglu: bool = False

    @property
    def matrix_rows(self) -> int:
        """Rows of weights."""
        return self.outputs * (2 if self.swiglu else 1)


MODELS = {
    shape.name: shape
    for shape in (
        Shape("SmolLM2-135M", 576, 1536, 9, 3, 64, 49152),
        Shape("Llama-3.2-1B", 2048, 8192, 32, 8, 64, 128256),
        Shape("Llama-2-7B", 4096, 11008, 32, 32, 128, 32000),
        Shape("Llama-3-8B", 4096, 14336, 32, 8, 128, 128256),
    )
}
ROWS = (1, 2, 4, 6, 8, 16, 64)
CONTEXTS = (128, 1024, 4096, 8192)
KV_DTYPES = ("fp32", "bf16", "fp16")


def fits(stored: str, k: int) -> bool:
    """Whether rows of ``k`` weights can be stored so: K-quants have blocks of 256."""
    return not stored.endswith("_K") or k % 256 == 0
