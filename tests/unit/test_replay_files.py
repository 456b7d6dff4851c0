"""Trace files: what was written comes back, and nothing else is taken for a trace."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee.errors import CheckpointError, ConfigurationError
from specee.replay import Text, Trace, read_trace, write_trace
from tests.unit.recorded import TABLE, planted, random_trace


def same(one: Trace, other: Trace) -> bool:
    texts = zip(one.texts, other.texts, strict=True)
    return (one.name, one.layers, one.latency) == (other.name, other.layers, other.latency) and all(
        a.prompt == b.prompt
        and all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("tokens", "drafts", "confidences"))
        for a, b in texts
    )


def test_a_trace_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "one.trace"
    for trace in (random_trace(4), planted(6)):
        write_trace(path, trace)  # the second replaces the first
        assert same(read_trace(path), trace)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path: Path) -> None:
    path, link = tmp_path / "one.npz", tmp_path / "link.npz"
    write_trace(path, planted(6))
    link.symlink_to(path)
    write_trace(link, planted(12))
    assert link.is_symlink()
    assert read_trace(path).name == "k = 12"


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.npz"
    write_trace(path, planted(6))
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_trace(path, planted(12))
    assert read_trace(path).name == "k = 6"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "one.npz"
    with pytest.raises(CheckpointError, match="FileNotFound"):
        read_trace(path)
    for content in (b"", b"hello", b"PK\x03\x04", _bytes(np.save, np.arange(3)), _bytes(np.savez)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="trace"):
            read_trace(path)
    np.savez(path, format=np.array({"a": 1}, dtype=object))
    with pytest.raises(CheckpointError, match="pickle"):
        read_trace(path)


def _bytes(save: Any, *arrays: np.ndarray) -> bytes:
    memory = io.BytesIO()
    save(memory, *arrays)
    return memory.getvalue()


@pytest.mark.parametrize(("name", "value", "says"), [
    ("format", np.array("other"), "no trace"),
    ("version", np.array(1), "version 1"),
    ("tokens", None, "'tokens'"),
    ("drafts", np.zeros((3, 24)), "'drafts'"),
    ("tokens", np.arange(5), "'tokens'"),
    ("confidences", np.full((256, 24), np.nan), "confidence"),
    ("confidences", np.zeros((256, 23)), "shapes"),
    ("prompts", np.array([9]), "shorter|longer"),
    ("prompts", np.array([0, 9]), "prompt of 0"),
    ("lengths", np.array([258, 0]), "without tokens"),
    ("lengths", np.array([], np.int64), "entries"),
    ("positions", np.array([100, 156]), "recorded"),
    ("layers", np.array(23), "23 layers"),
    ("layers", np.array([24, 24]), "damaged"),
    ("rows", np.array([2, 2, 8, 20]), "latency table"),
    ("layer", np.array([np.inf] * 4), "latency table"),
    ("layer", np.zeros(4), "latency table"),
    ("around", np.zeros(3), "latency table"),
])  # fmt: skip
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, name: str, value: np.ndarray | None, says: str
) -> None:
    path = tmp_path / "one.npz"
    write_trace(path, planted(6))
    with np.load(path) as file:
        arrays = dict(file)
    del arrays[name]
    np.savez(path, **arrays, **({} if value is None else {name: value}))
    with pytest.raises(CheckpointError, match=says):
        read_trace(path)


def test_damage_never_passes_for_something_else(tmp_path: Path) -> None:
    path, trace = tmp_path / "one.npz", planted(6, texts=1, tokens=20)
    write_trace(path, trace)
    whole = path.read_bytes()
    seed = 11
    rng = random.Random(seed)
    for _ in range(150):
        damaged = bytearray(whole)
        if rng.random() < 0.2:
            del damaged[rng.randrange(len(whole)) :]
        else:
            damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            found = read_trace(path)
        except CheckpointError:
            continue
        assert same(found, trace), f"seed {seed}"  # in what zip files say twice or nobody reads


def test_texts_have_to_be_possible() -> None:
    text = planted(6).texts[0]
    wrong = text.drafts.copy()
    wrong[-1, -1] += 1
    with pytest.raises(ConfigurationError, match="last layer"):
        Text(text.tokens, text.prompt, wrong, text.confidences)
    with pytest.raises(ConfigurationError, match="no texts"):
        Trace("none", 24, TABLE, ())
