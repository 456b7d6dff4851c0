"""GGUF files of every kind of matrix: the very values of the file are kept, and results follow from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

import specee
from specee.backends.cpu import CpuBackend
from specee.errors import CheckpointError, ConfigurationError, OutOfMemoryError
from specee.models.checkpoint import open_checkpoint
from specee.models.table import Slab, matrices
from tests.engines import Engine, all_engines, native_engines
from tests.gguf_files import tensors_of, write_gguf
from tests.quantised import BYTES, KINDS, any_rows, to_floats
from tests.random_model import BASE, CONFIGS, SHAPES, Key, RandomModel, random_model, round_bf16

ALIGNED = replace(CONFIGS["aligned"], tied_head=False)
# Rows of 256 and 512, no number of rows a multiple of anything.
UNEVEN = replace(
    SHAPES["wide"], intermediate_size=512, vocab_size=83, num_heads=3, num_kv_heads=1, head_dim=256
)


def packed(path: Path, engine: Engine) -> tuple[CpuBackend, dict[Key, str]]:
    """A file in the native backend, as ``specee.load`` puts it there, and what its matrices are stored in."""
    checkpoint = open_checkpoint(path)
    formats = checkpoint.formats("packed")
    isa = engine.isa or None
    slabs = checkpoint.slabs(formats)
    return CpuBackend(checkpoint.config, slabs, "packed", formats, threads=1, isa=isa), formats


def assert_rows(backend: CpuBackend, key: Key, wanted: np.ndarray) -> None:
    """All rows at once, and a few from the middle, have these bits."""
    native, rows = backend._engine, len(wanted)
    assert np.array_equal(native.weight_rows(*key, 0, rows).view(np.uint32), wanted.view(np.uint32)), key
    some = native.weight_rows(*key, rows // 3, 5)
    assert np.array_equal(some.view(np.uint32), wanted[rows // 3 : rows // 3 + 5].view(np.uint32)), key


@pytest.mark.parametrize("engine", native_engines())
@pytest.mark.parametrize("kind", [*KINDS, "F32", "F16", "BF16"])
def test_every_weight_is_that_of_the_file_to_the_bit(engine: Engine, kind: str, tmp_path: Path) -> None:
    """Blocks of random bytes with scales of any finite fp16; floats of any finite bit pattern."""
    seed = 31
    rng = np.random.default_rng(seed)
    tensors = tensors_of(random_model(UNEVEN, seed))
    for key, shape in matrices(UNEVEN).items():
        tensors[key] = (kind, any_rows(rng, *shape, kind) if kind in KINDS else any_floats(rng, shape, kind))
    backend, formats = packed(write_gguf(tmp_path / "model.gguf", UNEVEN, tensors), engine)
    assert set(formats.values()) == {kind}
    for key, (_, array) in tensors.items():
        if key in formats:
            columns = matrices(UNEVEN)[key][1]
            assert_rows(backend, key, to_floats(array, kind, columns) if kind in KINDS else array)


def any_floats(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """float32 values that ``kind`` holds, of every size."""
    if kind == "F16":
        bits = rng.integers(0, 0x7C00, shape) | (rng.integers(0, 2, shape) << 15)
        return bits.astype(np.uint16).view(np.float16).astype(np.float32)
    bits = rng.integers(0, 0x7F80_0000, shape) | (rng.integers(0, 2, shape) << 31)
    return (bits & (0xFFFF_FFFF if kind == "F32" else 0xFFFF_0000)).astype(np.uint32).view(np.float32)


@pytest.mark.parametrize("engine", native_engines())
def test_files_of_mixed_types(engine: Engine, tmp_path: Path) -> None:
    """q, k and v of three types in one product; gate and up that cannot share; types without kernels."""
    seed = 32
    rng = np.random.default_rng(seed)
    model = random_model(ALIGNED, seed, kind="mixed")
    tensors = tensors_of(model)
    other = {
        ("q", 0): "Q8_0", ("k", 0): "BF16", ("v", 0): "Q4_0",
        ("q", 1): "F32", ("v", 1): "Q5_0",
        ("gate", 1): "Q8_0", ("up", 2): "Q5_1", ("down", 2): "IQ4_NL", ("o", 2): "F16", ("head", -1): "Q4_0",
    }  # fmt: skip
    for key, kind in other.items():
        shape = matrices(ALIGNED)[key]
        if kind == "IQ4_NL":  # gguf reads it only: an fp16 scale and 32 nibbles that index a table
            blocks = rng.integers(0, 256, (shape[0], shape[1] // 32, 18), dtype=np.uint8)
            blocks[..., 1] = 0x20
            tensors[key] = (kind, blocks.reshape(shape[0], -1))
        else:
            made = gguf.quants.quantize(rng.normal(0, 0.2, shape).astype(np.float32), kind_of(kind))
            tensors[key] = (kind, made if made.dtype == np.uint8 else made.astype(np.float32))
    backend, formats = packed(write_gguf(tmp_path / "model.gguf", ALIGNED, tensors), engine)
    changed = {key: form for key, form in formats.items() if form != model.formats[key]}
    kept = {key: kind for key, kind in other.items() if key not in (("v", 1), ("down", 2))}
    kept |= {("v", 1): "BF16", ("down", 2): "BF16"}
    kept |= {("gate", 1): "F32", ("up", 1): "F32", ("gate", 2): "F32", ("up", 2): "F32"}
    assert changed == kept
    for key, form in formats.items():
        kind, array = tensors[key]
        values = array if array.dtype == np.float32 else gguf.quants.dequantize(array, kind_of(kind))
        assert_rows(backend, key, round_bf16(values) if form == "BF16" else values)


def kind_of(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name]


@pytest.mark.parametrize("engine", native_engines())
@pytest.mark.parametrize("name", ["llama", "odd"])
@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rows_that_fill_no_whole_block(engine: Engine, kind: str, name: str) -> None:
    model = random_model(SHAPES[name], seed=33, kind=kind)
    backend = engine.load(model, kind)
    for key in model.blocks:
        assert_rows(backend, key, np.ascontiguousarray(model.weights[key]))  # type: ignore[arg-type]


def logits(backend: specee.Backend, tokens: range) -> np.ndarray:
    sequence = backend.sequence(len(tokens))
    work = [(sequence, sequence.append(tokens))]
    backend.advance(work, backend.config.num_layers)
    return backend.logits(work)


@pytest.mark.parametrize("engine", all_engines())
@pytest.mark.parametrize(
    ("name", "kind"), [("aligned", "q4_0"), ("aligned", "mixed"), ("llama", "floats"), ("wide", "k-quants")]
)
def test_a_file_gives_the_results_of_its_arrays(
    engine: Engine, name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through every stage of loading, to the bit; a GGUF file stays packed unless told otherwise."""
    if engine.isa:
        monkeypatch.setenv("SPECEE_FORCE_ISA", engine.isa)
    model = random_model(SHAPES[name], seed=34, kind=kind)
    path = write_gguf(tmp_path / "model.gguf", model.config, tensors_of(model))
    loaded = specee.load(path, backend=engine.backend, threads=1)
    assert loaded.backend.weights == "packed"
    assert np.array_equal(logits(loaded.backend, range(9)), logits(engine.load(model, kind), range(9)))


@pytest.mark.parametrize("engine", native_engines())
def test_packed_weights_are_small(engine: Engine) -> None:
    """A matrix takes the bytes of its file, rows filled up to vectors of 16; K-quants a little more."""
    config = replace(SHAPES["wide"], hidden_size=512, intermediate_size=512, head_dim=128, vocab_size=101)
    for kind, share in (("q4_0", 1.01), ("mixed", 1.01), ("k-quants", 1.12)):
        model = random_model(config, seed=35, kind=kind)
        stored = sum(blocks.nbytes for blocks in model.blocks.values())
        backend = engine.load(model, kind)
        assert stored <= backend.weight_bytes <= share * stored + 64 * 1024  # type: ignore[attr-defined]


def with_slab(model: RandomModel, key: Key, array: np.ndarray, form: str) -> list[Slab]:
    """The model's slabs, those of one tensor replaced by another array."""
    return [s for s in model.slabs() if (s.role, s.layer) != key] + [Slab(*key, 0, array, form)]


def wrong_slabs() -> dict[str, tuple[np.ndarray, str]]:
    """What cannot be a matrix of 64 rows of 64 weights stored Q4_1."""
    size = BYTES["Q4_1"]
    floats = np.zeros((64, 64), np.float32)
    return {
        "floats": (floats, "F32"),
        "blocks of another format": (np.zeros((64, 2 * BYTES["Q4_0"]), np.uint8), "Q4_0"),
        "short rows": (np.zeros((64, size), np.uint8), "Q4_1"),
        "long rows": (np.zeros((64, 3 * size), np.uint8), "Q4_1"),
        "no whole blocks": (np.zeros((64, 2 * size + 1), np.uint8), "Q4_1"),
        "too many rows": (np.zeros((65, 2 * size), np.uint8), "Q4_1"),
        "too few rows": (np.zeros((63, 2 * size), np.uint8), "Q4_1"),
        "blocks in one run": (np.zeros(64 * 2 * size, np.uint8), "Q4_1"),
        "blocks held as floats": (floats, "Q4_1"),
        "floats held as bytes": (np.zeros((64, 64), np.uint8), "F32"),
    }


@pytest.mark.parametrize("engine", all_engines())
@pytest.mark.parametrize("case", wrong_slabs())
def test_blocks_that_do_not_fit_are_refused(engine: Engine, case: str) -> None:
    model = random_model(ALIGNED, seed=36, kind="mixed")
    assert model.weights["down", 1].shape == (64, 64)
    with pytest.raises(CheckpointError, match="down"):
        load_slabs(engine, model, with_slab(model, ("down", 1), *wrong_slabs()[case]))


@pytest.mark.parametrize("engine", all_engines())
def test_blocks_for_a_float_matrix_or_a_vector_are_refused(engine: Engine) -> None:
    model = random_model(BASE, seed=36, kind="mixed")  # its down matrices are F16
    rows = matrices(BASE)["down", 1][0]
    blocks = np.zeros((rows, 2 * BYTES["Q4_1"]), np.uint8)
    norm = np.zeros((BASE.hidden_size, BYTES["Q4_1"]), np.uint8)
    for key, array in ((("down", 1), blocks), (("attn_norm", 1), norm), (("attn_norm", 1), norm[0])):
        with pytest.raises(CheckpointError, match=key[0]):
            load_slabs(engine, model, with_slab(model, key, array, "Q4_1"))


def load_slabs(engine: Engine, model: RandomModel, slabs: list[Slab]) -> None:
    if engine.backend == "reference":
        from specee.backends.reference import ReferenceBackend

        ReferenceBackend(model.config, slabs, "packed", model.formats)
    else:
        CpuBackend(model.config, slabs, "packed", model.formats, threads=1, isa=engine.isa or None)


@pytest.mark.parametrize("engine", all_engines())
def test_packed_weights_need_formats(engine: Engine) -> None:
    model = random_model(ALIGNED, seed=37, kind="mixed")
    with pytest.raises(ConfigurationError, match=r"weights='packed'.*GGUF"):
        engine.load(model, "packed")


@pytest.mark.parametrize("engine", native_engines())
def test_formats_that_no_kernel_computes_are_refused(engine: Engine) -> None:
    from specee import _cpu

    formats = dict.fromkeys(matrices(ALIGNED), "Q4_1")
    gap = {key: form for key, form in formats.items() if key != ("o", 1)}
    for wrong in (formats | {("o", 1): "Q2_K"}, formats | {("gate", 0): "Q8_0"}, gap):
        with pytest.raises(ConfigurationError):
            _cpu.Engine(ALIGNED, wrong, engine.isa, 1)


@pytest.mark.parametrize("engine", native_engines())
def test_weights_beyond_memory_are_refused_before_they_are_read(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_model(SHAPES["wide"], seed=38, kind="int4")
    needed = engine.load(model, "int4").weight_bytes  # type: ignore[attr-defined]
    monkeypatch.setattr("specee.backends.memory.available", lambda: needed - 1)

    def unread() -> object:
        raise AssertionError("weights were read")
        yield

    with pytest.raises(OutOfMemoryError, match="int4 weights"):
        CpuBackend(model.config, unread(), "int4", threads=1)  # type: ignore[arg-type]
    monkeypatch.setattr("specee.backends.memory.available", lambda: needed)
    CpuBackend(model.config, model.slabs(), "int4", threads=1)
