"""Decode attention against softmax in float64, over paths of chains and trees, with poisoned slots."""

from __future__ import annotations

import numpy as np
import pytest

from specee.cuda import attention as op
from specee.cuda.tiles import attention_splits
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import UNIT, from_bf16, to_bf16

POISON = {"bf16": np.uint16(0x7FC1), "fp16": np.float16(np.nan)}


def stored_as(kind: str, x: np.ndarray) -> np.ndarray:
    return to_bf16(x) if kind == "bf16" else x.astype(np.float16)


def worth(kind: str, x: np.ndarray) -> np.ndarray:
    return (from_bf16(x) if kind == "bf16" else x).astype(np.float64)


class Cache:
    """Keys and values of a long text at random slots; every other slot is NaN."""

    def __init__(self, rng: np.random.Generator, kind: str, shape: tuple[int, int, int]) -> None:
        length, self.key_heads, self.dim = shape
        self.kind = kind
        self.slots = rng.permutation(2 * length + 3)[:length]
        size = (2 * length + 3, self.key_heads, self.dim)
        self.keys, self.values = (np.full(size, POISON[kind]) for _ in range(2))
        for array in (self.keys, self.values):
            array[self.slots] = stored_as(kind, rng.standard_normal((length, self.key_heads, self.dim)))


def attend(
    device: Device,
    cache: Cache,
    queries: np.ndarray,
    paths: list[np.ndarray],
    begins: list[int] | None = None,
    table: int = 0,
) -> np.ndarray:
    """Row r attends to the slots paths[r][begins[r]:]; what is not attended to is no slot at all."""
    rows, heads, dim = queries.shape
    table = table or max(len(path) for path in paths)
    splits = attention_splits(table)
    slots = np.full((rows, table), 2**30, np.int32)
    for row, path in enumerate(paths):
        begin = begins[row] if begins else 0
        slots[row, begin : len(path)] = path[begin:]
    put = device.put
    ends = put(np.array([len(path) for path in paths], np.int32))
    out = put(np.full((rows, heads, dim), np.nan, np.float32))
    op.attention(
        device.launcher,
        put(queries),
        put(cache.keys),
        put(cache.values),
        op.Paths(put(slots), ends, put(np.array(begins, np.int32)) if begins else None),
        out,
        op.Workspace(
            put(np.full((rows, heads, splits, dim), np.nan, np.float32)),
            *(put(np.full((rows, heads, splits), np.nan, np.float32)) for _ in range(2)),
        ),
        scale=dim**-0.5,
    )
    return device.get(out)


def exact(cache: Cache, query: np.ndarray, path: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One row in float64 (heads, dim), and how far fp32 may be from it."""
    heads, dim = query.shape
    shared = heads // cache.key_heads
    keys, values = (worth(cache.kind, a[path]) for a in (cache.keys, cache.values))
    out, bound = np.zeros((heads, dim)), np.zeros((heads, dim))
    for head in range(heads):
        k, v, q = keys[:, head // shared], values[:, head // shared], query[head].astype(np.float64)
        scores = k @ q * dim**-0.5
        error = ((dim + 8) * UNIT * (np.abs(k) @ np.abs(q)) * dim**-0.5).max()
        error += 4 * UNIT * np.ptp(scores)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        out[head] = weights @ v
        # An error e of a score changes its weight by a factor of 1 + e, twice with the sum below it.
        relative = 2 * (2 * error + 8 * UNIT) + 2 * (len(path) + 16) * UNIT
        bound[head] = relative * (weights @ np.abs(v)) + 1e-30
    return out, bound


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
@pytest.mark.parametrize(
    ("heads", "key_heads", "dim", "lengths"),
    [
        (3, 1, 64, [1, 40, 256]),
        (4, 2, 64, [257, 600]),
        (9, 1, 64, [130]),
        (2, 2, 128, [300, 7]),
        (2, 1, 256, [260]),
    ],
)
def test_against_softmax(
    device: Device,
    rng: np.random.Generator,
    kind: str,
    heads: int,
    key_heads: int,
    dim: int,
    lengths: list[int],
) -> None:
    cache = Cache(rng, kind, (max(lengths), key_heads, dim))
    queries = (2 * rng.standard_normal((len(lengths), heads, dim))).astype(np.float32)
    paths = [cache.slots[:length] for length in lengths]
    out = attend(device, cache, queries, paths)
    for row, path in enumerate(paths):
        expected, bound = exact(cache, queries[row], path)
        assert np.all(np.abs(out[row] - expected) <= bound), f"row {row}"


def test_a_window(device: Device, rng: np.random.Generator) -> None:
    """Positions before it are not read, whole splits of them included."""
    cache = Cache(rng, "bf16", (600, 1, 64))
    queries = rng.standard_normal((3, 2, 64)).astype(np.float32)
    paths, begins = [cache.slots[:600], cache.slots[:300], cache.slots[:520]], [560, 255, 0]
    out = attend(device, cache, queries, paths, begins)
    for row in range(3):
        expected, bound = exact(cache, queries[row], paths[row][begins[row] :])
        assert np.all(np.abs(out[row] - expected) <= bound), f"row {row}"


def test_a_branch_has_the_bits_of_the_chain(device: Device, rng: np.random.Generator) -> None:
    """A tree's rows, each along its own ancestors, beside others or alone, and from a moved cache."""
    cache = Cache(rng, "bf16", (280, 2, 64))
    text, drafts = cache.slots[:254], cache.slots[254:262]
    query = rng.standard_normal((4, 64)).astype(np.float32)
    branches = [[0, 3, 5], [0, 3], [1, 2, 4, 6], [7]]
    paths = [np.concatenate([text, drafts[branch]]) for branch in branches]
    tree = attend(device, cache, np.tile(query, (4, 1, 1)), paths)
    chain = Cache(rng, "bf16", (280, 2, 64))
    for row, path in enumerate(paths):
        places = chain.slots[: len(path)]
        chain.keys[places], chain.values[places] = cache.keys[path], cache.values[path]
        alone = attend(device, chain, query[None], [places], table=700)
        np.testing.assert_array_equal(alone[0], tree[row])


def test_masked_slots_are_not_read(device: Device, rng: np.random.Generator) -> None:
    """The negative control: a NaN that is attended to is seen, and only by the row that attends to it."""
    cache = Cache(rng, "fp16", (64, 1, 64))
    queries = rng.standard_normal((2, 1, 64)).astype(np.float32)
    paths = [cache.slots[:40], cache.slots[:30]]
    sound = attend(device, cache, queries, paths)
    cache.values[cache.slots[35]] = np.nan
    poisoned = attend(device, cache, queries, paths)
    assert np.isfinite(sound).all()
    assert np.isnan(poisoned[0]).all()
    np.testing.assert_array_equal(poisoned[1], sound[1])


def test_another_order_of_positions_is_noticed(device: Device, rng: np.random.Generator) -> None:
    """Why paths are in logical order: exchanging two positions of different splits changes bits."""
    cache = Cache(rng, "bf16", (300, 1, 64))
    query = rng.standard_normal((1, 1, 64)).astype(np.float32)
    path = cache.slots[:300].copy()
    before = attend(device, cache, query, [path])
    path[[3, 290]] = path[[290, 3]]
    assert (attend(device, cache, query, [path]) != before).any()


def test_impossible_shapes_are_refused(device: Device, rng: np.random.Generator) -> None:
    cache = Cache(rng, "bf16", (4, 2, 64))
    with pytest.raises(ConfigurationError, match="3 heads on 2"):
        attend(device, cache, np.zeros((1, 3, 64), np.float32), [cache.slots])
    with pytest.raises(ConfigurationError, match=r"allowed are \(64, 128, 256\)"):
        attend(device, Cache(rng, "bf16", (4, 1, 32)), np.zeros((1, 1, 32), np.float32), [np.arange(2)])
