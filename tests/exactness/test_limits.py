"""Misuse of the native engine, and states at the edge of number formats: errors, never crashes or hangs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from specee import env
from specee.backends.cpu import CpuBackend
from specee.backends.memory import available, check_room
from specee.errors import (
    CapacityError,
    CheckpointError,
    ConfigurationError,
    NumericalError,
    OutOfMemoryError,
    RowError,
)
from specee.models.table import Slab
from specee.sampling import sample
from specee.types import Sampling
from tests.random_model import BASE, RandomModel, random_model

LAYERS = BASE.num_layers


def backend_of(model: RandomModel, weights: str = "fp32", threads: int = 1) -> CpuBackend:
    return CpuBackend(model.config, model.slabs(), weights, threads=threads)


def scaled(model: RandomModel, **factors: float) -> RandomModel:
    """The model with the tensors of some roles multiplied."""
    weights = {
        key: (array * np.float32(factors.get(key[0], 1.0))).astype(np.float32)
        for key, array in model.weights.items()
    }
    return replace(model, weights=weights)


def long_running() -> tuple[CpuBackend, object, range]:
    """A backend with a prompt that takes far longer to compute than the calls made meanwhile."""
    config = replace(BASE, hidden_size=256, intermediate_size=512, head_dim=64, max_position=8192)
    backend = backend_of(random_model(config, seed=3))
    sequence = backend.sequence(8192)
    return backend, sequence, sequence.append([1] * 8192)


def test_other_threads_can_use_other_sequences_and_not_a_busy_one() -> None:
    backend, sequence, slots = long_running()
    thread = threading.Thread(target=backend.advance, args=([(sequence, slots[-1:])], LAYERS))
    thread.start()
    refused = False
    while thread.is_alive() and not refused:
        try:
            _ = sequence.frontier
        except RowError:
            refused = True
    assert refused, "the sequence was never seen in use"
    with pytest.raises(RowError, match="in use"):
        sequence.rollback(1)
    # Once a deadlock: this waited for the engine while it held Python's lock, and the engine waited for that.
    other = backend.sequence(8)
    other.append([1, 2])
    backend.advance([(other, [1])], LAYERS)
    thread.join()
    assert sequence.frontier == (8192,) * LAYERS


@pytest.mark.parametrize("capacity", [2**40, 2**31, 0, -1])
def test_an_impossible_capacity(capacity: int) -> None:
    with pytest.raises(CapacityError, match=str(capacity)):
        backend_of(random_model(BASE, seed=1)).sequence(capacity)


def test_numbers_that_fit_no_slot_or_token() -> None:
    backend = backend_of(random_model(BASE, seed=1))
    sequence = backend.sequence(8)
    with pytest.raises(RowError):
        sequence.append([2**40])
    slots = sequence.append([1])
    backend.advance([(sequence, slots)], LAYERS)
    for k in (0, -1, BASE.vocab_size + 1, 2**31 - 1, 2**40):
        with pytest.raises(RowError, match="top-k"):
            backend.topk([(sequence, slots)], k)
    with pytest.raises(RowError):
        sequence.row(2**40)


def test_an_overflowing_model_raises_and_does_not_return_tokens() -> None:
    """Values beyond fp16 become infinite in an fp16 cache, and attention turns them into NaN."""
    backend = backend_of(scaled(random_model(BASE, seed=2), v=1e7))
    sequence = backend.sequence(8, "fp16")
    work = [(sequence, sequence.append([1, 2, 3]))]
    backend.advance(work, LAYERS)
    assert not np.isfinite(backend.hidden(work)).all()
    for head in (backend.argmax, backend.logits):
        with pytest.raises(NumericalError, match="fp32"):
            head(work)
    with pytest.raises(NumericalError):
        backend.topk(work, 2)
    with pytest.raises(NumericalError):
        backend.sample(work, [Sampling(1.0, top_p=0.9)] * 3)


@pytest.mark.parametrize("role", ["attn_norm", "mlp_norm", "final_norm"])
def test_inputs_too_large_for_blocks_raise_too(role: str) -> None:
    """An infinite input has no 8-bit block; what its product gives must not look like a number."""
    model = random_model(BASE, seed=2, kind="int8")
    huge = np.full(BASE.hidden_size, np.finfo(np.float32).max, np.float32)
    weights = {key: huge if key[0] == role else array for key, array in model.weights.items()}
    backend = backend_of(replace(model, weights=weights), "int8")
    sequence = backend.sequence(8, "fp32")
    work = [(sequence, sequence.append([1, 2, 3]))]
    backend.advance(work, LAYERS)
    for head in (backend.argmax, backend.logits):
        with pytest.raises(NumericalError, match="fp32"):
            head(work)


def test_only_formats_with_kernels_are_accepted() -> None:
    with pytest.raises(ConfigurationError, match="fp16"):
        backend_of(random_model(BASE, seed=1), weights="fp16")


def test_rows_must_come_once_and_in_order() -> None:
    model = random_model(BASE, seed=1)

    def twice() -> Iterator[Slab]:
        for slab in model.slabs():
            half = slab.array[: len(slab.array) // 2]
            if slab.role == "down":
                yield replace(slab, row_begin=0, array=half)
                yield replace(slab, row_begin=0, array=half)
            else:
                yield slab

    with pytest.raises(CheckpointError, match="down"):
        CpuBackend(model.config, twice(), "fp32", threads=1)


def test_a_dtype_without_a_meaning() -> None:
    slab = Slab("embed", -1, 0, np.zeros((BASE.vocab_size, BASE.hidden_size)), "F32")
    with pytest.raises(CheckpointError, match="float64"):
        CpuBackend(BASE, [slab], "fp32", threads=1)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_callers_float_mode_changes_nothing(threads: int) -> None:
    """Flush-to-zero, which torch can switch on for a thread, must not reach results: denormals survive."""
    model = scaled(random_model(BASE, seed=4), embed=1e-39, o=1e-39, down=1e-39)
    backend = backend_of(model, threads=threads)

    def state() -> np.ndarray:
        sequence = backend.sequence(4)
        work = [(sequence, sequence.append([1, 2, 3]))]
        backend.advance(work, LAYERS)
        return backend.hidden(work)

    plain = state()
    assert ((plain != 0) & (np.abs(plain) < np.finfo(np.float32).tiny)).any(), "no denormals to lose"
    if not torch.set_flush_denormal(True):
        pytest.fail("this processor cannot flush denormals, so the test shows nothing here")
    try:
        flushed = state()
        assert torch.tensor([1e-39]) * 1.0 == 0, "the mode was not on"
    finally:
        torch.set_flush_denormal(False)
    assert np.array_equal(plain, flushed)


@pytest.mark.parametrize("seed", [7, -5, 2**64 - 1])
def test_nucleus_sampling_of_ties_is_the_plain_function(seed: int) -> None:
    backend = backend_of(scaled(random_model(BASE, seed=6), head=0.0))
    sequence = backend.sequence(200)
    slots = sequence.append([1] * 200)
    backend.advance([(sequence, slots)], LAYERS)
    logits = backend.logits([(sequence, slots)])
    options = [Sampling(0.7, top_p=0.05 + 0.004 * i, seed=seed) for i in range(200)]
    drawn = backend.sample([(sequence, slots)], options)
    assert drawn.tolist() == [sample(logits[i], options[i], i + 1) for i in range(200)]


def test_bytes_of_a_step_leave_out_the_embedding_of_an_untied_head() -> None:
    untied = backend_of(random_model(BASE, seed=1))
    padded = (BASE.vocab_size + 15) // 16 * 16
    copy = padded * (2 * 20 * BASE.hidden_size // 32 + 14)  # of the head, for two stages; not made yet
    assert untied.weight_bytes - untied.step_bytes == padded * BASE.hidden_size * 4 + copy
    tied = backend_of(random_model(replace(BASE, tied_head=True), seed=1))
    assert tied.weight_bytes == tied.step_bytes + copy


def test_memory_that_is_not_there_is_refused_beforehand() -> None:
    with pytest.raises(OutOfMemoryError, match=r"a KV cache.*fewer"):
        check_room(2**60, "a KV cache", "ask for fewer")
    check_room(1, "a KV cache", "ask for fewer")


def test_a_cgroup_leaves_what_files_do_not_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least room of the process's groups counts; groups without a limit or files are passed over."""
    inner, outer = tmp_path / "a" / "b", tmp_path / "a"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (outer / "memory.max").write_text("1000\n")
    (outer / "memory.current").write_text("900\n")
    (outer / "memory.stat").write_text("anon 500\ninactive_file 250\nactive_file 150\n")
    monkeypatch.setattr(env, "cgroup_folders", lambda: [inner, outer, tmp_path])
    assert available() == 500
    with pytest.raises(OutOfMemoryError):
        check_room(501 + (1 << 20), "a KV cache", "ask for fewer")
