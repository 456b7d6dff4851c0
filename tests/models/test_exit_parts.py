"""Exit predictors and calibrations in speculator files: what is written is read, what is wrong is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy as st

from specee.errors import CheckpointError
from specee.models.exit_parts import Calibration, ExitParts
from specee.models.speculator import Speculator, read_speculator, write_speculator
from tests.random_drafter import random_parts
from tests.random_exits import random_exits
from tests.random_model import BASE

PRINT = "cd" * 32
METADATA = {
    "format": "specee-speculator",
    "version": "1",
    "fingerprint": PRINT,
    "calibration.weights": "packed",
}
LAST = BASE.num_layers - 1


def whole() -> Speculator:
    rng = np.random.default_rng(4)
    losses = rng.random((2, 7)).astype(np.float32)
    return Speculator(
        np.arange(20),
        {},
        random_parts(BASE, (1, BASE.num_layers), rng),
        random_exits(BASE, rng, candidates=4),
        Calibration(np.array([0.9, 0.5], np.float32), losses, "packed"),
    )


def written(path: Path, speculator: Speculator) -> Path:
    write_speculator(path / "a.safetensors", speculator, PRINT)
    return path / "a.safetensors"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    wanted = whole()
    assert wanted.exits is not None
    assert wanted.calibration is not None
    read = read_speculator(written(tmp_path, wanted), BASE, PRINT)
    assert read.exits is not None
    assert read.calibration is not None
    assert read.exits.layers == wanted.exits.layers
    assert read.exits.candidates == 4
    for (name, found), (_, given) in zip(read.exits.arrays(), wanted.exits.arrays(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, given.astype(np.float16).astype(np.float32), err_msg=name)
    np.testing.assert_array_equal(read.calibration.thresholds, wanted.calibration.thresholds)
    np.testing.assert_array_equal(read.calibration.losses, wanted.calibration.losses)
    assert read.calibration.weights == "packed"
    without = read_speculator(written(tmp_path, replace(wanted, calibration=None)), BASE, PRINT)
    assert without.calibration is None
    assert without.exits is not None


def exits(**changes: np.ndarray | None) -> dict[str, np.ndarray | None]:
    return {f"exits.{name}": array for name, array in changes.items()}


def calibration(**changes: np.ndarray | None) -> dict[str, np.ndarray | None]:
    return {f"calibration.{name}": array for name, array in changes.items()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (exits(first=None), ["exits.first", "missing"]),
        (exits(layers=None), ["exits.layers", "missing"]),
        (exits(layers=np.array([2, 1])), ["ascending"]),
        (exits(layers=np.array([1, LAST + 1])), [f"1..{LAST}"]),
        (exits(layers=np.array([1])), ["exits.first", "must be"]),
        (exits(first=np.zeros((LAST, 5, 7), np.float16)), ["3 x candidates"]),
        (exits(first=np.zeros((LAST, 5, 51), np.float16)), ["1 to 16"]),
        (exits(second=np.zeros((LAST, 5), np.float16)), ["exits.second", "must be"]),
        (exits(second_bias=np.full(LAST, np.nan, np.float32)), ["exits.second_bias", "NaN"]),
        (exits(extra=np.zeros(3, np.float32)), ["exits.extra", "no place"]),
        (calibration(losses=None), ["calibration.losses", "missing"]),
        (calibration(losses=np.zeros((3, 7), np.float32)), ["(3, 7)"]),
        (calibration(losses=np.zeros((2, 0), np.float32)), ["(2, 0)"]),
        (calibration(losses=np.full((2, 7), 1.5, np.float32)), ["shares"]),
        (calibration(thresholds=np.array([0.5, 0.9], np.float32)), ["descending"]),
        (calibration(thresholds=np.array([1.5, 0.9], np.float32)), ["from 0 to 1"]),
        (dict.fromkeys(("drafter.layers", "drafter.fc")), ["drafter"]),
    ],
)
def test_parts_that_are_wrong(
    changes: dict[str, np.ndarray | None], words: list[str], tmp_path: Path
) -> None:
    path = written(tmp_path, whole())
    tensors = st.load_file(path)
    for name, array in changes.items():
        if array is None:
            del tensors[name]
        else:
            tensors[name] = array
    st.save_file(tensors, path, METADATA)
    with pytest.raises(CheckpointError) as caught:
        read_speculator(path, BASE, PRINT)
    for word in (*words, str(path)):
        assert word in str(caught.value)


def test_predictors_need_the_block_whose_candidates_they_judge(tmp_path: Path) -> None:
    path = written(tmp_path, replace(whole(), drafter=None))
    with pytest.raises(CheckpointError, match="drafter block"):
        read_speculator(path, BASE, PRINT)


def test_a_calibration_says_what_it_was_made_with(tmp_path: Path) -> None:
    path = written(tmp_path, whole())
    tensors = st.load_file(path)
    st.save_file(tensors, path, {name: said for name, said in METADATA.items() if "weights" not in name})
    with pytest.raises(CheckpointError, match="weights"):
        read_speculator(path, BASE, PRINT)


def test_candidates_are_counted() -> None:
    parts = random_exits(BASE, np.random.default_rng(1), candidates=6)
    assert isinstance(parts, ExitParts)
    assert parts.candidates == 6
    assert parts.misfit(BASE) is None
