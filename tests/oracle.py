"""The most naive model there is: a path of tokens, from scratch, plain causal attention, numpy.

Stateless: no cache, no frontier, no rows. It runs in float64 or float32, with or without the
roundings of the stored formats, and so also measures how far rounding alone moves a result.

How far an engine may be from it (:func:`expected`):

* ``tight``: different summation orders. The float32 run of this oracle has the operations of an fp32 engine
  and errs against the float64 run by ``e``, one draw of the rounding error. Another order of an n-term sum
  errs by between log2(n) and n units in the last place; for the n <= 64 terms of the tests these are
  at most 64 / 6 < 11 apart. So 16 e, where e is the largest error in the array, plus 4 ulp of its
  largest value. A product with a quantised matrix adds one or two terms for each group of a row, after
  exact integer sums: 32 terms at most in rows of 256, and its oracle has the same operations.
* ``loose``: roundings that fall differently. Engine and oracle round at the same places, but an
  element within e of a tie may go up in one and down in the other (one in about 2^14 for 16 bits; for the 8
  bits of quantised inputs, whose error of some 2^-22 of the block's largest value meets steps of 2^-7, one in
  about as many), and what follows is then two draws of the rounding noise. One draw moves the result by
  ``r`` (oracle with roundings minus oracle without); the largest difference of two draws over an array is
  taken to be within 4 r.

Loose holds always; that roundings sit where they are promised shows in most short paths being tight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from specee.types import ModelConfig
from tests import quantised
from tests.random_model import RandomModel, round_bf16


@dataclass(frozen=True)
class Trace:
    """hidden (layers, path, hidden), keys and values (layers, path, kv_heads, d), logits (path, vocab)."""

    hidden: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    logits: np.ndarray


def round_to(array: np.ndarray, kind: str) -> np.ndarray:
    """Values rounded to ``kind`` ("none", "fp32", "bf16", "fp16"), in the dtype they came in."""
    if kind == "bf16":
        return round_bf16(array).astype(array.dtype)
    if kind == "fp16":
        return array.astype(np.float32).astype(np.float16).astype(array.dtype)
    return array


def run(model: RandomModel, tokens: tuple[int, ...], dtype: type, cache: str, *, rounded: bool) -> Trace:
    """Every hidden state, key, value and logit of the path ``tokens``, computed in ``dtype``.

    ``rounded``: whether inputs of products are rounded as their matrices' formats want it. ``cache``: what
    keys and values are rounded to.
    """
    config = model.config
    weights = {key: array.astype(dtype) for key, array in model.weights.items()}
    x = weights["embed", -1][list(tokens)]
    trace: list[tuple[np.ndarray, ...]] = []
    for layer in range(config.num_layers):
        own = {role: array for (role, index), array in weights.items() if index == layer}

        def linear(role: str, x: np.ndarray, layer: int = layer) -> np.ndarray:
            y = product(model, (role, layer), x, rounded=rounded)
            bias = weights.get((f"{role}_bias", layer))
            return y if bias is None else y + bias

        normed = _norm(x, own["attn_norm"], config.norm_eps)
        q, k, v = (_heads(config, linear(role, normed)) for role in "qkv")
        if config.qk_norm:
            q, k = _norm(q, own["q_norm"], config.norm_eps), _norm(k, own["k_norm"], config.norm_eps)
        q, k = _rotate(config, q), round_to(_rotate(config, k), cache)
        v = round_to(v, cache)
        x = x + linear("o", _attention(config.windows[layer], q, k, v))
        normed = _norm(x, own["mlp_norm"], config.norm_eps)
        gate = linear("gate", normed)
        x = x + linear("down", gate / (1 + np.exp(-gate)) * linear("up", normed))
        trace.append((x, k, v))
    normed = _norm(x, weights["final_norm", -1], config.norm_eps)
    logits = product(model, ("embed" if config.tied_head else "head", -1), normed, rounded=rounded)
    return Trace(*(np.stack(parts) for parts in zip(*trace, strict=True)), logits)


def product(model: RandomModel, key: tuple[str, int], x: np.ndarray, *, rounded: bool) -> np.ndarray:
    """``x @ matrix.T`` in x's dtype: (rows, in) -> (rows, out)."""
    form = model.formats[key]
    if form not in quantised.KINDS:
        inputs = round_to(x, "bf16") if rounded and form == "BF16" else x
        return inputs @ model.weights[key].astype(x.dtype).T
    parts = quantised.parts(model.blocks[key], form)
    padded = np.pad(x, ((0, 0), (0, parts.q[0].size - x.shape[1])))
    q, scale = in_blocks(padded) if rounded else (padded, np.ones((len(x), padded.shape[1] // 32)))
    _, groups, size = parts.q.shape
    q = q.astype(x.dtype).reshape(len(x), groups, size)
    scale = np.repeat(scale, 32 // size, axis=1).astype(x.dtype)
    dots = np.einsum("rgi,ogi->rog", q, parts.q.astype(x.dtype))
    terms = parts.scale.astype(x.dtype) * scale[:, None] * dots
    if parts.offset is not None:
        terms = terms + parts.offset.astype(x.dtype) * (scale * q.sum(-1))[:, None]
    return terms.sum(-1)


def in_blocks(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers (rows, in) and scales (rows, in / 32) of inputs in blocks of 32, in fp32 arithmetic."""
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    largest = np.abs(blocks).max(-1)
    scale = np.where(largest < np.float32(1e-30), np.float32(0), largest * np.float32(1 / 127))
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    return np.rint(blocks * inverse[..., None]).reshape(x.shape), scale


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + x.dtype.type(eps)) * weight


def _heads(config: ModelConfig, x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), -1, config.head_dim)


def _speeds(config: ModelConfig) -> np.ndarray:
    """Rotation speeds in fp32, as transformers keeps them; one at a time."""
    rope = config.rope
    speeds = []
    for i in range(config.head_dim // 2):
        speed = np.float32(1.0 / rope.theta ** (2 * i / config.head_dim))
        wavelength = 2 * np.pi / speed
        if rope.scaling == "linear":
            speed = speed / rope.factor
        if rope.scaling == "llama3":
            smooth = (rope.original_max_position / wavelength - rope.low_freq_factor) / (
                rope.high_freq_factor - rope.low_freq_factor
            )
            smooth = min(max(smooth, 0.0), 1.0)
            speed = (1 - smooth) * speed / rope.factor + smooth * speed
        speeds.append(np.float32(speed))
    return np.array(speeds, np.float32)


def _rotate(config: ModelConfig, x: np.ndarray) -> np.ndarray:
    angle = np.outer(np.arange(len(x), dtype=np.float32), _speeds(config)).astype(x.dtype)[:, None, :]
    cos, sin = np.cos(angle), np.sin(angle)
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)


def _attention(window: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    rows, heads, dim = q.shape
    k, v = (np.repeat(part, heads // k.shape[1], axis=1) for part in (k, v))
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.dtype.type(dim))
    back = np.arange(rows)[:, None] - np.arange(rows)[None, :]
    hidden = (back < 0) | ((back >= window) if window else False)
    scores = np.where(hidden, -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hqk,khd->qhd", weights, v).reshape(rows, -1)


@dataclass(frozen=True)
class Expected:
    """The float64 run with the format's roundings, and how far off an engine may be, by field of Trace."""

    trace: Trace
    tight: dict[str, float]
    loose: dict[str, float]

    def error(self, name: str, position: int, actual: np.ndarray, layer: int | None = None) -> float:
        """Largest difference of an engine's ``name`` at one position (and layer, but for logits)."""
        wanted = getattr(self.trace, name)
        wanted = wanted[position] if layer is None else wanted[layer, position]
        return float(np.abs(np.asarray(actual, np.float64) - wanted).max())

    def check(self, name: str, position: int, actual: np.ndarray, layer: int | None = None) -> None:
        """Assert that an engine's ``name`` is within the loose tolerance (which is tight for fp32)."""
        error, allowed = self.error(name, position, actual, layer), self.loose[name]
        # `not <=` rather than `>`: a NaN must fail.
        if not error <= allowed:
            raise AssertionError(
                f"{name} at position {position}, layer {layer}: off by {error}, allowed {allowed}"
            )


def expected(model: RandomModel, tokens: tuple[int, ...], cache: str) -> Expected:
    """What an engine must give for ``tokens`` with a ``cache`` of that dtype."""
    exact = run(model, tokens, np.float64, cache, rounded=True)
    plain = run(model, tokens, np.float64, "none", rounded=False)
    single = run(model, tokens, np.float32, "none", rounded=False)
    tight, loose = {}, {}
    for name in Trace.__dataclass_fields__:
        a, b, c = (getattr(trace, name) for trace in (exact, plain, single))
        tight[name] = float(16 * np.abs(c - b).max() + 4 * np.finfo(np.float32).eps * np.abs(a).max())
        loose[name] = float(tight[name] + 4 * np.abs(a - b).max())
    return Expected(exact, tight, loose)
