"""Speculator files: what is written comes back, what is wrong is refused, and models are told apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy as st

from specee.errors import CheckpointError
from specee.models.checkpoint import Checkpoint, open_checkpoint
from specee.models.speculator import Adapter, Speculator, fingerprint, read_speculator, write_speculator
from specee.models.table import shapes
from tests.random_drafter import random_parts
from tests.random_model import BASE, CONFIGS, round_bf16
from tests.tiny_models import tiny_folder, tiny_gguf, tiny_model

PRINT = "ab" * 32
METADATA = {"format": "specee-speculator", "version": "1", "fingerprint": PRINT}
HIDDEN = BASE.hidden_size


def some_adapter(width: int, seed: int) -> Adapter:
    rng = np.random.default_rng(seed)
    shape = {"norm": (HIDDEN,), "down": (width, HIDDEN), "up": (HIDDEN, width)}
    return Adapter(**{name: rng.normal(size=size).astype(np.float32) for name, size in shape.items()})


def some_speculator() -> Speculator:
    ids = np.random.default_rng(0).permutation(BASE.vocab_size)[:40]
    return Speculator(ids, {1: some_adapter(5, 1), 2: some_adapter(9, 2)})


def tensors_of(speculator: Speculator) -> dict[str, np.ndarray]:
    tensors = {} if speculator.vocabulary is None else {"vocabulary": speculator.vocabulary}
    for layer, adapter in speculator.adapters.items():
        tensors |= {f"adapters.{layer}.{part}": array for part, array in vars(adapter).items()}
    return tensors


def assert_equal(read: Speculator, wanted: Speculator) -> None:
    found, expected = tensors_of(read), tensors_of(wanted)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == (np.int64 if name == "vocabulary" else np.float32)
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("parts", ["both", "vocabulary", "adapters", "neither"])
def test_what_is_written_is_read(parts: str, tmp_path: Path) -> None:
    speculator = some_speculator()
    if parts in ("adapters", "neither"):
        speculator = replace(speculator, vocabulary=None)
    if parts in ("vocabulary", "neither"):
        speculator = replace(speculator, adapters={})
    path = tmp_path / "parts.safetensors"
    write_speculator(path, speculator, PRINT)
    assert_equal(read_speculator(path, BASE, PRINT), speculator)
    assert [entry.name for entry in tmp_path.iterdir()] == ["parts.safetensors"]


def drafter_file(tmp_path: Path, **changes: np.ndarray | None) -> Path:
    """A file with a drafter, some of whose tensors are others, or missing."""
    parts = random_parts(BASE, (1, BASE.num_layers), np.random.default_rng(7))
    path = tmp_path / "drafter.safetensors"
    write_speculator(path, Speculator(drafter=parts), PRINT)
    tensors = st.load_file(path)
    for name, array in changes.items():
        if array is None:
            del tensors[f"drafter.{name}"]
        else:
            tensors[f"drafter.{name}"] = array
    st.save_file(tensors, path, METADATA)
    return path


def test_a_drafter_comes_back_in_half_precision(tmp_path: Path) -> None:
    parts = random_parts(BASE, (1, BASE.num_layers), np.random.default_rng(7))
    read = read_speculator(drafter_file(tmp_path), BASE, PRINT)
    assert read.vocabulary is None
    assert read.adapters == {}
    assert read.drafter is not None
    assert read.drafter.layers == (1, BASE.num_layers)
    for (name, found), (_, wanted) in zip(read.drafter.arrays(), parts.arrays(), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted.astype(np.float16).astype(np.float32), err_msg=name)


def test_a_plain_drafter_has_what_it_has_and_no_more(tmp_path: Path) -> None:
    rng, path = np.random.default_rng(7), tmp_path / "plain.safetensors"
    parts = random_parts(BASE, (1, BASE.num_layers), rng, plain=True)
    write_speculator(path, Speculator(drafter=parts), PRINT)
    tensors = st.load_file(path)
    assert {name.removeprefix("drafter.") for name in tensors} == {
        *("layers", "state_norms", "fc", "fc_bias", "mlp_norm"), *("q", "k", "v", "o", "gate", "up", "down"),
    }  # fmt: skip
    read = read_speculator(path, BASE, PRINT).drafter
    assert read is not None
    assert read.plain
    for (name, found), (_, wanted) in zip(read.arrays(), parts.arrays(), strict=True):
        np.testing.assert_array_equal(found, wanted.astype(np.float16).astype(np.float32), err_msg=name)
    norm = np.ones(BASE.hidden_size, np.float16)
    for changes, words in (
        ({"fc_bias": None}, ["'drafter.fc_bias' is missing"]),
        ({"attn_norm": norm}, ["'drafter.fuse' is missing"]),
        ({"layers": np.array([1, 2])}, ["layers (1, 2)", "reads one"]),
    ):
        other = {**tensors, **{f"drafter.{name}": array for name, array in changes.items()}}
        st.save_file({name: array for name, array in other.items() if array is not None}, path, METADATA)
        refuse(path, *words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fc": None}, ["drafter.fc", "missing"]),
        ({"layers": None}, ["drafter.layers", "missing"]),
        ({"layers": np.array([], np.int64)}, ["drafter.layers", "(0,)"]),
        ({"layers": np.array([[1, 4]])}, ["drafter.layers", "(1, 2)"]),
        ({"layers": np.array([1.0, 4.0], np.float32)}, ["drafter.layers", "F32"]),
        ({"layers": np.array([4, 1])}, ["ascending"]),
        ({"layers": np.array([0, 1])}, ["(0, 1)", "1.."]),
        ({"layers": np.array([1, 99])}, ["(1, 99)", f"1..{BASE.num_layers}"]),
        ({"layers": np.array([1])}, ["state_norms"]),
        ({"q": np.zeros((3, 5), np.float16)}, ["drafter.q", "(3, 5)"]),
        ({"gate": np.zeros((7, HIDDEN), np.float16)}, ["drafter.up"]),
        ({"gate": np.zeros(HIDDEN, np.float16)}, ["drafter.gate"]),
        ({"fuse": np.full((HIDDEN, 2 * HIDDEN), np.nan, np.float16)}, ["drafter.fuse", "NaN"]),
        ({"embed_norm": np.full(HIDDEN, np.inf, np.float32)}, ["drafter.embed_norm", "infinite"]),
        ({"v": np.zeros((BASE.kv_dim, HIDDEN), np.int64)}, ["drafter.v", "I64"]),
        ({"extra": np.zeros(3, np.float16)}, ["drafter.extra", "no place"]),
    ],
)
def test_a_drafter_that_is_not_whole(
    changes: dict[str, np.ndarray | None], words: list[str], tmp_path: Path
) -> None:
    refuse(drafter_file(tmp_path, **changes), *words)


def test_half_precision_and_short_integers_are_widened(tmp_path: Path) -> None:
    """bf16 is in no numpy: the header is written by hand, as the format has it."""
    wanted = Speculator(np.array([5, 3]), {2: some_adapter(4, 3)})
    adapter = wanted.adapters[2]
    exact = Adapter(round_bf16(adapter.norm), adapter.down.astype(np.float16).astype(np.float32), adapter.up)
    data = {
        "vocabulary": ("I32", np.array([5, 3], np.int32)),
        "adapters.2.norm": ("BF16", (exact.norm.view(np.uint32) >> 16).astype(np.uint16)),
        "adapters.2.down": ("F16", exact.down.astype(np.float16)),
        "adapters.2.up": ("F32", exact.up),
    }
    path = tmp_path / "half.safetensors"
    path.write_bytes(by_hand(data))
    assert_equal(read_speculator(path, BASE, PRINT), replace(wanted, adapters={2: exact}))


def by_hand(data: dict[str, tuple[str, np.ndarray]], metadata: dict[str, str] = METADATA) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for name, (dtype, array) in data.items():
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [at, at + array.nbytes],
        }
        at += array.nbytes
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for _, array in data.values())


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "parts.safetensors"
    write_speculator(path, some_speculator(), PRINT)
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="no space left"):
        write_speculator(path, Speculator(np.array([1])), PRINT)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["parts.safetensors"]


def refuse(path: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_speculator(path, BASE, PRINT)
    for word in (str(path), *words):
        assert word in str(caught.value)


def test_a_file_for_another_model_names_both(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    write_speculator(path, some_speculator(), "cd" * 32)
    refuse(path, "cd" * 32, PRINT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "pt"}, ["'format' is 'pt'", "'specee-speculator'"]),
        ({"format": None}, ["'format' is None"]),
        ({"version": "2"}, ["version '2'", "version '1'"]),
        ({"version": None}, ["version None"]),
        ({"fingerprint": None}, ["fingerprint None", PRINT]),
    ],
)
def test_wrong_metadata(change: dict[str, str | None], words: list[str], tmp_path: Path) -> None:
    metadata = {key: value for key, value in {**METADATA, **change}.items() if value is not None}
    path = tmp_path / "wrong.safetensors"
    st.save_file(tensors_of(some_speculator()), path, metadata)
    refuse(path, *words)


def test_a_file_without_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    st.save_file({"x": np.zeros(3, np.float32)}, path)
    refuse(path, "'format' is None")


def test_no_file_a_folder_and_a_pickle(tmp_path: Path) -> None:
    refuse(tmp_path / "missing.safetensors")
    refuse(tmp_path)
    pickled = tmp_path / "parts.pt"
    pickled.write_bytes(b"\x80\x04\x95" + bytes(200))
    refuse(pickled)


def test_every_truncation_and_many_flipped_bytes(tmp_path: Path) -> None:
    """A cut file is refused; a changed byte of the header is refused, or leaves the parts as they were."""
    path = tmp_path / "parts.safetensors"
    speculator = Speculator(np.array([4, 2]), {1: some_adapter(1, 0)})
    write_speculator(path, speculator, PRINT)
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for size in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:size])
        refuse(path)
    path.write_bytes(whole + b"\0")
    refuse(path)
    rng = np.random.default_rng(0)
    for at in range(header):
        damaged = bytearray(whole)
        damaged[at] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read = read_speculator(path, BASE, PRINT)
        except CheckpointError:
            continue
        # Padding, or the name of a part turned into another part's.
        assert set(read.adapters) <= {1, 2}


def wrong_tensors() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Name -> (tensors that replace those of some_speculator(), None dropping one; words)."""
    right = some_adapter(5, 1)
    infinite = right.up.copy()
    infinite[3, 2] = np.inf
    nan = right.norm.copy()
    nan[7] = np.nan
    layer = {f"adapters.3.{part}": array for part, array in vars(right).items()}
    first = {f"adapters.0.{part}": array for part, array in vars(right).items()}
    return {
        "layer past the last exit": (layer, ["layer 3", "1 to 2"]),
        "layer zero": (first, ["layer 0", "1 to 2"]),
        "layer written otherwise": ({"adapters.01.norm": right.norm}, ["'adapters.01.norm'", "no place"]),
        "negative layer": ({"adapters.-1.norm": right.norm}, ["'adapters.-1.norm'", "no place"]),
        "unknown tensor": ({"gate": right.norm}, ["'gate'", "no place"]),
        "part missing": ({"adapters.1.up": None}, ["'adapters.1.up' is missing"]),
        "norm of another size": ({"adapters.1.norm": right.norm[1:]}, ["adapters.1.norm", "(31,)", "(32,)"]),
        "down of another size": ({"adapters.1.down": right.down[:, 1:]}, ["adapters.1.down", "(5, 32)"]),
        "up of another width": ({"adapters.1.up": right.up[:, 1:]}, ["adapters.1.up", "(32, 5)"]),
        "down a vector": ({"adapters.1.down": right.norm}, ["adapters.1.down"]),
        "no width": (
            {"adapters.1.down": right.down[:0], "adapters.1.up": right.up[:, :0]},
            ["adapters.1.down", "(1, 32)"],
        ),
        "scalar": ({"adapters.1.down": np.array(1, np.float32)}, ["adapters.1.down"]),
        "doubles": ({"adapters.1.norm": right.norm.astype(np.float64)}, ["is F64", "F32, F16, BF16"]),
        "infinite value": ({"adapters.1.up": infinite}, ["adapters.1.up", "[3, 2]"]),
        "NaN": ({"adapters.2.norm": nan}, ["adapters.2.norm", "[7]"]),
        "id past the vocabulary": ({"vocabulary": np.array([3, 101])}, ["id 101", "0 to 100"]),
        "negative id": ({"vocabulary": np.array([3, -1])}, ["id -1", "0 to 100"]),
        "id twice": ({"vocabulary": np.array([9, 3, 9])}, ["id 9 more than once"]),
        "no ids": ({"vocabulary": np.array([], np.int64)}, ["vocabulary", "(0,)"]),
        "ids in two dimensions": ({"vocabulary": np.array([[3, 9]])}, ["(1, 2)"]),
        "ids that are floats": ({"vocabulary": np.array([1.0], np.float32)}, ["is F32", "I64, I32"]),
    }


@pytest.mark.parametrize("case", wrong_tensors())
def test_wrong_tensors(case: str, tmp_path: Path) -> None:
    change, words = wrong_tensors()[case]
    tensors = {**tensors_of(some_speculator()), **change}
    path = tmp_path / "wrong.safetensors"
    kept = {name: np.ascontiguousarray(array) for name, array in tensors.items() if array is not None}
    if case == "scalar":  # which ascontiguousarray makes a vector
        kept["adapters.1.down"] = change["adapters.1.down"]
    st.save_file(kept, path, METADATA)
    refuse(path, *words)


def print_of(checkpoint: Checkpoint) -> str:
    return fingerprint(checkpoint.config, checkpoint.norms())


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3"])
def test_one_model_has_one_fingerprint_in_every_format(family: str, tmp_path: Path) -> None:
    wide = {"hidden_size": 64, "intermediate_size": 64}  # rows of whole blocks of 32
    folder = print_of(open_checkpoint(tiny_folder(family, tmp_path / "a", seed=3, **wide)))
    assert len(folder) == 64
    int(folder, 16)
    sources: dict[str, Any] = {
        "shards": tiny_folder(family, tmp_path / "b", seed=3, sharded=True, **wide),
        "bf16": tiny_folder(family, tmp_path / "c", seed=3, dtype="bfloat16", **wide),
        "floats": tiny_gguf(family, tmp_path / "f32.gguf", seed=3, **wide),
        "blocks": tiny_gguf(family, tmp_path / "q8.gguf", seed=3, quantization="Q8_0", **wide),
        "memory": tiny_model(family, seed=3, **wide),
    }
    for name, source in sources.items():
        assert print_of(open_checkpoint(source)) == folder, name
    assert print_of(open_checkpoint(sources["floats"], max_context=17)) == folder
    assert print_of(open_checkpoint(tiny_folder(family, tmp_path / "d", seed=4, **wide))) != folder


def norms_of(config: Any, seed: int = 0) -> dict[tuple[str, int], np.ndarray]:
    rng = np.random.default_rng(seed)
    keys = [key for key in shapes(config) if key[0].endswith("norm")]
    return {key: rng.normal(1.0, 0.1, shapes(config)[key]).astype(np.float32) for key in keys}


def listed(norms: dict[tuple[str, int], np.ndarray]) -> list[tuple[str, int, np.ndarray]]:
    return [(*key, array) for key, array in norms.items()]


def test_a_fingerprint_follows_shape_and_norms() -> None:
    norms = norms_of(BASE)
    base = fingerprint(BASE, listed(norms))
    assert fingerprint(BASE, listed(norms)[::-1]) == base
    assert fingerprint(replace(BASE, max_position=99, family="mistral"), listed(norms)) == base
    assert fingerprint(BASE, listed({key: round_bf16(array) for key, array in norms.items()})) == base
    prints = {base}
    for name in ("vocab_size", "intermediate_size", "num_heads", "num_kv_heads", "head_dim"):
        prints.add(fingerprint(replace(BASE, **{name: 2 * getattr(BASE, name)}), listed(norms)))
    for key in norms:
        moved = {**norms, key: norms[key].copy()}
        moved[key][5] *= np.float32(1.02)
        prints.add(fingerprint(BASE, listed(moved)))
    swapped = {**norms, ("attn_norm", 0): norms["attn_norm", 1], ("attn_norm", 1): norms["attn_norm", 0]}
    prints.add(fingerprint(BASE, listed(swapped)))
    assert len(prints) == 1 + 5 + len(norms) + 1


def test_a_fingerprint_needs_every_norm_once() -> None:
    norms = norms_of(CONFIGS["qwen3"])
    config = CONFIGS["qwen3"]
    fingerprint(config, listed(norms))
    with pytest.raises(CheckpointError, match="q_norm"):
        fingerprint(config, [item for item in listed(norms) if item[:2] != ("q_norm", 1)])
    with pytest.raises(CheckpointError, match="q_bias"):
        fingerprint(config, [*listed(norms), ("q_bias", 0, np.zeros(3, np.float32))])
    with pytest.raises(CheckpointError, match=r"\(31,\)"):
        fingerprint(config, listed({**norms, ("final_norm", -1): norms["final_norm", -1][1:]}))


def test_norms_are_read_without_the_matrices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(tiny_folder("qwen3", tmp_path, seed=3))
    source, names = checkpoint.table.source, []
    original = source.read

    def read(name: str, begin: int, end: int) -> Any:
        names.append(name)
        return original(name, begin, end)

    monkeypatch.setattr(source, "read", read)
    assert sorted((role, layer) for role, layer, _ in checkpoint.norms()) == sorted(
        norms_of(checkpoint.config)
    )
    assert all(name.endswith("norm.weight") for name in names)


def test_the_library_agrees_that_files_are_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "parts.safetensors"
    write_speculator(path, some_speculator(), PRINT)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == METADATA
        assert set(file.keys()) == set(tensors_of(some_speculator()))
