"""The drafter block on the CUDA backend: the formula's states, and the same bits however rows came.

The plain version is the block of the reference backend. Sums in another order are the same to 1e-6, but for
inputs of products that then round to the next of 127 steps, which is up to half a percent of a state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from specee.backends.cuda_drafter import CudaColumn, CudaDrafter
from specee.backends.protocol import (
    Backend,
    ChainCall,
    DraftedTree,
    DraftFormat,
    FittedColumn,
    SequenceState,
    TreeCall,
)
from specee.backends.reference_drafter import ReferenceDrafter
from specee.cuda.launcher import Launcher
from specee.errors import CapacityError, ConfigurationError, DeviceError, OutOfMemoryError
from specee.types import ModelConfig, Sampling
from tests.cuda.emulator import fresh_seed
from tests.engines import Engine, cuda_engines
from tests.random_drafter import random_parts
from tests.random_model import SHAPES, random_model

pytestmark = pytest.mark.parametrize("engine", cuda_engines())
TILES = SHAPES["tiles"]
LAYERS = (1, TILES.num_layers)
CLOSE, ROUNDED = 1e-5, 0.02


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(fresh_seed("a drafter block"))


@pytest.fixture
def backend(engine: Engine) -> Backend:
    return engine.load(random_model(TILES, seed=3, kind="bf16"), "bf16")


def device_of(engine: Engine) -> torch.device:
    return torch.device("cuda" if engine.isa == "device" else "cpu")


def apart(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """How far, in lengths of the right one."""
    right = theirs.cpu()
    return float(torch.linalg.norm(ours.cpu() - right) / torch.linalg.norm(right))


def begun(backend: Backend, tokens: list[int]) -> SequenceState:
    """All but the newest token computed, with room for 40 more."""
    sequence = backend.sequence(len(tokens) + 40, poison=True)
    sequence.keep(LAYERS, 200)
    slots = list(sequence.append(tokens))
    backend.advance([(sequence, slots[:-1])], TILES.num_layers)
    return sequence


def text(rng: np.random.Generator, length: int) -> list[int]:
    tokens: list[int] = rng.integers(TILES.vocab_size, size=length).tolist()
    return tokens


def random_states(rng: np.random.Generator, config: ModelConfig, count: int) -> torch.Tensor:
    return torch.tensor(rng.normal(0, 1, (count, config.hidden_size)), dtype=torch.float32)


@pytest.mark.parametrize(
    ("name", "stored", "plain", "inner"),
    [
        ("tiles", "Q8_0", False, 40),
        ("tiles-window", "Q4_1", False, 96),
        ("tiles-linear-rope", "Q8_0", True, 64),
        ("tiles-qk-norm", "Q4_1", True, 33),
    ],
)
def test_states_are_those_of_the_formula(
    engine: Engine, name: str, stored: DraftFormat, plain: bool, inner: int, rng: np.random.Generator
) -> None:
    """Chains that begin behind others; behind fewer, or nearer to them, a row is another.

    What rounds to another step in one row is in the keys and values for all rows behind it, so there are
    columns enough that most of them have no such row.
    """
    config = SHAPES[name]
    model, device = random_model(config, seed=5, kind="bf16"), device_of(engine)
    parts = random_parts(config, (1, config.num_layers), rng, inner, plain=plain)
    kernels = engine.load(model, "bf16").drafter(parts, stored)
    assert isinstance(kernels, CudaDrafter)
    formula = ReferenceDrafter(config, parts, stored, torch.device("cpu"))
    assert kernels.bytes == formula.bytes
    behind_text, behind_drafts = [], []
    for first in (0, 1, 7, 30, 64):
        ours, theirs = kernels.column(250, "fp16", poison=True), formula.column(250, "fp16")
        ours.first = theirs.first = first
        for position in range(first, first + 10, 2):
            (embedding,), states = (
                random_states(rng, config, 1),
                random_states(rng, config, len(formula.layers)),
            )
            found = kernels.text_row(ours, position, embedding.to(device), list(states.to(device)))
            before = formula.text_row(theirs, position, embedding, list(states))
            behind_text.append(apart(found, before))
            (embedding,) = random_states(rng, config, 1)
            found = kernels.row(ours, position + 1, embedding.to(device), before.to(device))
            right = formula.row(theirs, position + 1, embedding, before)
            behind_drafts.append(apart(found, right))
    for off in (behind_text, behind_drafts):
        assert np.quantile(off, 0.25) < CLOSE
        assert max(off) < ROUNDED
    for cut, at in ((9, 77), (2, 73)):
        theirs.cut(cut)
        assert apart(found, formula.row(theirs, at, embedding, before)) > 100 * CLOSE


def test_a_path_has_the_bits_of_a_chain(engine: Engine, backend: Backend, rng: np.random.Generator) -> None:
    """Two chains from one root, woven into each other, as nodes of a tree are."""
    drafter, device = backend.drafter(random_parts(TILES, LAYERS, rng)), device_of(engine)
    assert isinstance(drafter, CudaDrafter)
    tokens = random_states(rng, TILES, 13).to(device)
    alone = drafter.column(20, "bf16", poison=True)
    states = [drafter.row(alone, 1, tokens[0], tokens[12])]
    for at in (1, 2, 3, 4):
        states.append(drafter.row(alone, 1 + at, tokens[at], states[-1]))
    assert (alone.memory, alone.tail()) == ([0, 1, 2, 3, 4], [])
    woven = drafter.column(20, "bf16", poison=True)
    first = drafter.row(woven, 1, tokens[0], tokens[12])
    assert torch.equal(first, states[0])
    true, found = list(woven.memory), [first, first]
    paths: list[list[int]] = [[], []]
    for at in (1, 2, 3, 4):
        for branch in (1, 0):  # the true one is the second of each pair
            woven.memory[:] = [*true, *paths[branch]]
            token = tokens[at if branch == 0 else at + 6]
            found[branch] = drafter.row(woven, 1 + at, token, found[branch])
            paths[branch].append(woven.memory[-1])
        assert torch.equal(found[0], states[at]), at
        assert not torch.equal(found[1], states[at]), at
    assert paths == [[2, 4, 6, 8], [1, 3, 5, 7]]
    woven.memory[:] = true
    woven.cut(1)
    again = drafter.row(woven, 2, tokens[1], states[0])
    assert torch.equal(again, states[1])
    assert woven.memory == [0, 1]


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7, 70])
def test_text_that_comes_together_has_the_bits_of_row_after_row(
    engine: Engine, backend: Backend, length: int, plain: bool, rng: np.random.Generator
) -> None:
    drafter, device = backend.drafter(random_parts(TILES, LAYERS, rng, plain=plain)), device_of(engine)
    assert isinstance(drafter, CudaDrafter)
    tokens, count = text(rng, length + 3), len(drafter.layers)
    states = random_states(rng, TILES, (length + 3) * count).view(length + 3, count, -1).to(device)
    found = []
    for way in (CudaDrafter, ReferenceDrafter):
        column = drafter.column(80, "fp16", poison=True)
        column.first = 5
        for begin, end in ((0, 3), (3, 3 + length)):  # behind nothing, and behind some
            own = tokens[begin:end]
            args = (column, 5 + begin, own, lambda at: list(states[at - 5]), backend._embedding)  # type: ignore[attr-defined]
            state = way.behind_text(drafter, *args)
        assert column.tokens == tokens
        assert column.memory == list(range(length + 3))
        stored = [
            one[: length + 3].view(torch.int16).cpu() for one in (column.cache.keys, column.cache.values)
        ]
        assert bool(torch.isnan(column.cache.keys[length + 3 :]).all()), "nothing is stored behind it"
        found.append([state.cpu().view(torch.int32), *stored])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_column_that_caught_up_is_like_a_new_one(
    engine: Engine, backend: Backend, rng: np.random.Generator
) -> None:
    """Chains and trees of texts that go on, and that are cut and go on otherwise."""
    drafter, head = backend.drafter(random_parts(TILES, LAYERS, rng)), None
    sequence = begun(backend, text(rng, 6))
    column = drafter.column(sequence.capacity, "fp16", poison=True)
    assert isinstance(column, CudaColumn)
    for step in range(5):
        new = drafter.column(sequence.capacity, "fp16", poison=True)
        chains = [
            backend.draft_chains(drafter, [ChainCall(sequence, one, 3, 0.0, Sampling())], head)[0]
            for one in (column, new)
        ]
        assert chains[0] == chains[1]
        trees = [
            backend.draft_trees(
                drafter,
                [TreeCall(sequence, one, nodes=6, depth=3, width=2, children=2, stop_below=0.0,
                          deepen_from=0.0, sampling=Sampling())],
                head,
            )[0]
            for one in (column, new)
        ]  # fmt: skip
        assert trees[0] == trees[1]
        assert column.memory == list(range(column.length))
        assert column.used == column.length == sequence.length - 1
        if step == 2:
            sequence.rollback(4)
        slots = list(sequence.append([*chains[0][0][: step % 3], *text(rng, 1)]))
        pending = [slot for slot in range(sequence.length - 1) if sequence.row(slot).done < TILES.num_layers]
        assert slots
        backend.advance([(sequence, pending)], TILES.num_layers)


def test_a_tree_of_one_branch_is_a_chain(engine: Engine, backend: Backend, rng: np.random.Generator) -> None:
    drafter = backend.drafter(random_parts(TILES, LAYERS, rng), "Q4_1")
    sequence = begun(backend, text(rng, 9))
    tokens, shares = backend.draft_chains(
        drafter, [ChainCall(sequence, drafter.column(60, "bf16"), 4, 0.0, Sampling())]
    )[0]
    tree = backend.draft_trees(
        drafter,
        [TreeCall(sequence, drafter.column(60, "bf16"), nodes=4, depth=4, width=1, children=1, stop_below=0.0,
                  deepen_from=0.0, sampling=Sampling())],
    )[0]  # fmt: skip
    assert tree.tokens == tokens
    # Shares of a chain are summed on the device, those of a tree on the host: in another order.
    assert np.allclose(tree.chances, np.cumprod(shares), rtol=1e-5, atol=0)


def test_what_does_not_fit_is_refused(engine: Engine, backend: Backend, rng: np.random.Generator) -> None:
    parts = random_parts(TILES, LAYERS, rng)
    drafter = backend.drafter(parts)
    assert isinstance(drafter, CudaDrafter)
    with pytest.raises(ConfigurationError, match=r"kv_dtype 'fp32'.*'bf16', 'fp16'"):
        drafter.column(20, "fp32")
    with pytest.raises(CapacityError, match="a column of 0 positions"):
        drafter.column(0, "bf16")
    column, state = drafter.column(2, "bf16"), random_states(rng, TILES, 1)[0].to(device_of(engine))
    for position in (1, 2):
        drafter.row(column, position, state, state)
    with pytest.raises(CapacityError, match="a drafter's column of 2 positions is full"):
        drafter.row(column, 3, state, state)
    free = backend._free  # type: ignore[attr-defined]
    backend._free = lambda: 1000  # type: ignore[attr-defined]
    with pytest.raises(OutOfMemoryError, match=r"column of 20 positions.*shorter context"):
        drafter.column(20, "bf16")
    with pytest.raises(OutOfMemoryError, match=r"fuse of a drafter block.*draft without it"):
        backend.drafter(parts)
    backend._free = free  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="layers"):
        backend.drafter(replace(parts, layers=(1, 99)))
    other = ReferenceDrafter(backend.config, parts, "Q8_0", torch.device("cpu"))
    sequence = begun(backend, text(rng, 5))
    call = ChainCall(sequence, other.column(20, "bf16"), 2, 0.0, Sampling())
    with pytest.raises(ConfigurationError, match="a ReferenceDrafter of another backend"):
        backend.draft_chains(other, [call])


class Failing:
    """A launcher that fails at the ``left``-th launch from now on, or never."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher, self.left = launcher, 0

    def launch(self, *launch: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise DeviceError("scripted")
        self._launcher.launch(*launch)


def test_a_launch_that_fails_leaves_nothing_behind(
    engine: Engine, backend: Backend, rng: np.random.Generator
) -> None:
    drafter = backend.drafter(random_parts(TILES, LAYERS, rng))
    assert isinstance(drafter, CudaDrafter)
    sequence = begun(backend, text(rng, 7))
    drafter._launcher = failing = Failing(drafter._launcher)
    drafter.graphs._means = None  # kernel by kernel, on a device too

    def tree(column: FittedColumn) -> DraftedTree:
        call = TreeCall(sequence, column, nodes=6, depth=3, width=2, children=2, stop_below=0.0,
                        deepen_from=0.0, sampling=Sampling())  # fmt: skip
        return backend.draft_trees(drafter, [call])[0]

    wanted = tree(drafter.column(60, "bf16", poison=True))
    column = drafter.column(60, "bf16", poison=True)
    tree(column)
    failing.left = 0
    tree(column)
    launches = -failing.left  # of a column that has caught up: others take more
    assert launches > 40
    for at in rng.integers(1, launches + 1, 12).tolist():
        failing.left = at
        if at % 2:
            column.rows.known.clear()  # as the first time
        with pytest.raises(DeviceError, match="scripted"):
            tree(column)
        assert tree(column) == wanted
        column.cut(int(rng.integers(0, 6)))
