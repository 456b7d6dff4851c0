"""The emulator notices what goes wrong on devices in silence: races, stray accesses, missing threads."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from specee.cuda import acceptance
from specee.cuda.launcher import i32
from tests.cuda.emulator import ROOT, EmulatedError, EmulatedLauncher, build


def spoiled(tmp_path: Path, file: str, right: str, wrong: str) -> Path:
    """An emulator of kernels with one mistake in them."""
    shutil.copytree(ROOT / "csrc", tmp_path / "csrc", ignore=shutil.ignore_patterns("cpu", "bindings"))
    source = tmp_path / "csrc" / "cuda" / file
    text = source.read_text()
    assert text.count(right) == 1, f"{right!r} is in {file} {text.count(right)} times"
    source.write_text(text.replace(right, wrong))
    return build(tmp_path, tmp_path / "csrc")


def accept(program: Path, seed: int) -> np.ndarray:
    """A chain of drafts that all match, 300 rows, so that every warp has some."""
    rows = 300
    launcher = EmulatedLauncher(program, seed)
    tokens = np.arange(rows, dtype=np.int32)
    pieces = acceptance.Pieces(np.zeros((rows, 1)), np.arange(1, rows + 1, dtype=np.int32)[:, None].copy())
    drafts = acceptance.Drafts(tokens, tokens - 1, np.array([0, rows], np.int32))
    out = acceptance.Accepted(*(np.full(n, -9, np.int32) for n in (rows, rows, 1, 1)))
    acceptance.accept(launcher, pieces, drafts, out)
    return out.counts


def test_results_do_not_depend_on_the_order_of_threads(emulator: Path) -> None:
    assert [int(accept(emulator, seed)[0]) for seed in range(4)] == [299] * 4


@pytest.mark.slow
def test_a_missing_barrier_is_noticed(tmp_path: Path) -> None:
    """Rows look for children before all targets are there: what they find depends on the order."""
    right = "    targets[first + i] = shared.targets[i];\n  }\n  __syncthreads();\n"
    program = spoiled(tmp_path, "acceptance.cuh", right, right.replace("  __syncthreads();\n", ""))
    assert {int(accept(program, seed)[0]) for seed in range(4)} != {299}


@pytest.mark.slow
def test_a_barrier_that_some_threads_miss_is_noticed(tmp_path: Path) -> None:
    right = "  const float own = lanes_sum(value);\n"
    wrong = "  if (threadIdx.x < 5) __syncthreads();\n" + right
    program = spoiled(tmp_path, "numbers.cuh", right, wrong)
    with pytest.raises(EmulatedError, match="threads wait for others that never come"):
        score(program)


@pytest.mark.slow
def test_uninitialised_shared_memory_is_noticed(tmp_path: Path) -> None:
    right = "if (threadIdx.x % kLanes == 0) shared.parts[unit] = part;"
    program = spoiled(
        tmp_path, "scoring.cuh", right, "if (threadIdx.x % kLanes == 77) shared.parts[unit] = part;"
    )
    assert np.isnan(score(program)).all()


def test_a_stray_access_is_noticed(emulator: Path) -> None:
    x, narrow = np.zeros(100, np.float32), np.zeros(100, np.uint16)
    launcher = EmulatedLauncher(emulator)
    launcher.launch("round_rows", (1, 1, 1), 256, [x, narrow, i32(100)])
    with pytest.raises(EmulatedError, match="heap-buffer-overflow"):
        launcher.launch("round_rows", (1, 1, 1), 256, [x, narrow, i32(101)])


def test_wrong_arguments_are_refused(emulator: Path) -> None:
    launcher, x = EmulatedLauncher(emulator), np.zeros(4, np.float32)
    with pytest.raises(EmulatedError, match="round_rows takes 3 arguments, and there are 2"):
        launcher.launch("round_rows", (1, 1, 1), 256, [x, x])
    with pytest.raises(EmulatedError, match="argument 2 is not of kind i"):
        launcher.launch("round_rows", (1, 1, 1), 256, [x, x, np.int64(1)])
    with pytest.raises(EmulatedError, match="no kernel 'nothing'"):
        launcher.launch("nothing", (1, 1, 1), 256, [])


def score(program: Path) -> np.ndarray:
    logits = np.zeros((1, 2), np.float32)
    ones = np.ones(64, np.float32)
    arguments = [ones, None, ones, np.zeros((4, 64), np.uint16), np.array([[1, 2]], np.int32), logits]
    numbers = [i32(2), i32(4), i32(64), np.float32(1e-5)]
    EmulatedLauncher(program).launch("score_candidates", (1, 1, 1), 512, [*arguments, *numbers])
    return logits
