"""Damaged GGUF files give CheckpointError, quickly and without large allocations."""

from __future__ import annotations

import random
import struct
import tracemalloc
from pathlib import Path

import gguf
import numpy as np
import pytest

from specee.errors import CheckpointError, UnsupportedModelError
from specee.models.checkpoint import open_checkpoint
from specee.models.gguf_header import GGUFTensor, check_overlap, read_header
from tests.tiny_models import tiny_gguf

SEED = 22


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_gguf("llama", tmp_path_factory.mktemp("gguf") / "model.gguf", seed=SEED).read_bytes()


def header_size(data: bytes, tmp_path: Path) -> int:
    path = tmp_path / "sound.gguf"
    path.write_bytes(data)
    return min(tensor.offset for tensor in read_header(path).tensors.values())


def test_header_agrees_with_the_gguf_package(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(sound)
    ours, theirs = read_header(path), gguf.GGUFReader(path)
    for key, value in ours.metadata.items():
        expected = theirs.fields[key].contents()
        assert (value.tolist() if isinstance(value, np.ndarray) else value) == expected, key
    assert len(ours.metadata) == len([key for key in theirs.fields if not key.startswith("GGUF.")])
    assert [(t.name, t.offset, t.size, t.type, list(t.shape)) for t in ours.tensors.values()] == [
        (t.name, t.data_offset, t.n_bytes, t.tensor_type, t.shape.tolist()[::-1]) for t in theirs.tensors
    ]


@pytest.mark.parametrize("seed", range(40))
def test_truncation(seed: int, sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    source = random.Random(seed)
    limit = header_size(sound, tmp_path) if seed % 2 else len(sound)
    # The writer pads the last tensor; losing padding loses nothing.
    path.write_bytes(sound[: source.randrange(min(limit, len(sound) - 32))])
    with pytest.raises(CheckpointError, match=r"cut\.gguf: "):
        open_checkpoint(path)


@pytest.mark.parametrize("seed", range(150))
def test_flipped_bytes_in_the_header(seed: int, sound: bytes, tmp_path: Path) -> None:
    """Opening works (a letter of a name changed, say) or raises our error; no huge allocation."""
    source, data = random.Random(seed), bytearray(sound)
    limit = header_size(sound, tmp_path)
    for _ in range(source.choice([1, 1, 4, 16])):
        data[source.randrange(limit)] = source.choice([0, 1, 0x7F, 0xFF, source.randrange(256)])
    path = tmp_path / "flipped.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    try:
        for slab in open_checkpoint(path).slabs():
            assert slab.array.size
    except CheckpointError as error:
        assert str(error)  # noqa: PT017  (raising is one of two good outcomes)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 32 << 20, f"{peak} bytes for a file of {len(data)}"


def test_some_flips_are_noticed(sound: bytes, tmp_path: Path) -> None:
    """The property above is not empty: most flips in the sizes of the header are refused."""
    refused = 0
    for at in range(8, 24):
        data = bytearray(sound)
        data[at] ^= 0xFF
        path = tmp_path / f"{at}.gguf"
        path.write_bytes(data)
        try:
            open_checkpoint(path)
        except CheckpointError:
            refused += 1
    assert refused == 16


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: b"GGML" + d[4:], r"it starts with b'GGML'"),
        (lambda d: d[:4] + struct.pack("<I", 1) + d[8:], r"version 1 GGUF is not supported"),
        (lambda d: d[:4] + struct.pack(">I", 3) + d[8:], r"big-endian GGUF is not supported"),
        (
            lambda d: d[:8] + struct.pack("<Q", 2**60) + d[16:],
            r"1152921504606846976 tensors at byte 24 needs",
        ),
        (lambda d: d[:16] + struct.pack("<Q", 2**63) + d[24:], r"9223372036854775808 entries"),
        (
            lambda d: d[:24] + struct.pack("<Q", 2**40) + d[32:],
            r"a string at byte 32 needs 1099511627776 bytes",
        ),
        (lambda _: b"", r"the magic number at byte 0 needs 4 bytes, but the file has 0"),
    ],
)
def test_absurd_values(edit: object, words: str, sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(edit(sound))  # type: ignore[operator]
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path)


def replace_once(data: bytes, old: bytes, new: bytes) -> bytes:
    assert data.count(old) == 1
    return data.replace(old, new)


def tensor_entry(name: str, dims: list[int], offset: int, kind: int = 0) -> bytes:
    text = name.encode()
    sizes = b"".join(struct.pack("<Q", dim) for dim in dims)
    return (
        struct.pack("<Q", len(text))
        + text
        + struct.pack("<I", len(dims))
        + sizes
        + struct.pack("<IQ", kind, offset)
    )


def test_tensor_directory(sound: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(sound)
    header = read_header(path)
    norm = header.tensors["output_norm.weight"]
    offset = norm.offset - header_size(sound, tmp_path)
    good = tensor_entry("output_norm.weight", [32], offset)
    for bad, words in [
        (
            tensor_entry("output_norm.weight", [32], 1 << 40),
            r"should be at bytes 1099511\d+ to .*, the file has",
        ),
        (tensor_entry("output_norm.weight", [32], offset + 1), r"should be at bytes .*alignment 32"),
        (tensor_entry("output_norm.weight", [32], 0), r"tensors '.*' and '.*' overlap at byte"),
        (tensor_entry("output_norm.weight", [0], offset), r"has shape \(0,\)"),
        (tensor_entry("output_norm.weight", [32], offset, 999), r"'output_norm.weight' has unknown type 999"),
        (tensor_entry("output_norm.weight", [32], offset, 24), r"has dtype I8; supported are F32"),
        (
            tensor_entry("output_norm.weighs", [32], offset),
            r"1 of 30 tensors are missing: 'output_norm.weight'",
        ),
    ]:
        path.write_bytes(replace_once(sound, good, bad))
        with pytest.raises(CheckpointError, match=words):
            open_checkpoint(path)


def test_overlap_of_neighbours() -> None:
    kind = gguf.GGMLQuantizationType.F32
    first, second = GGUFTensor("a", (8,), kind, 64, 32), GGUFTensor("b", (8,), kind, 96, 32)
    check_overlap([second, first], Path("model.gguf"))
    with pytest.raises(CheckpointError, match="'a' and 'b' overlap at byte 95"):
        check_overlap([GGUFTensor("b", (8,), kind, 95, 32), first], Path("model.gguf"))


def test_infinite_scale_of_a_block(tmp_path: Path) -> None:
    path = tiny_gguf("llama", tmp_path / "model.gguf", seed=SEED, quantization="Q8_0")
    tensor = read_header(path).tensors["blk.2.ffn_up.weight"]
    data = bytearray(path.read_bytes())
    # Block 3 starts with its float16 scale.
    data[tensor.offset + 3 * 34 : tensor.offset + 3 * 34 + 2] = np.float16(np.inf).tobytes()
    path.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=r"'blk\.2\.ffn_up\.weight' holds a NaN or infinite weight at \[3, 0\]"
    ):
        list(open_checkpoint(path).slabs())


@pytest.mark.parametrize(
    ("family", "metadata", "words"),
    [
        ("llama", {"llama.rope.scaling.type": "yarn"}, "rope.scaling.type 'yarn' is not supported"),
        ("llama", {"llama.expert_count": 8}, "expert_count is 8; mixtures of experts"),
        ("llama", {"llama.rope.dimension_count": 4}, "rope.dimension_count is 4 and the head size 8"),
        ("llama", {"llama.attention.value_length": 16}, "attention.value_length is 16"),
        ("qwen2", {"qwen2.attention.sliding_window": 8}, "does not say which layers slide"),
        ("llama_rope3", {"llama.rope.freq_base": 1234.0}, "does not follow the Llama-3 rule"),
    ],
)
def test_unsupported_options(family: str, metadata: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        open_checkpoint(tiny_gguf(family, tmp_path / "model.gguf", seed=SEED, metadata=metadata))


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"llama.block_count": None}, "'block_count' is missing"),
        ({"llama.context_length": 0}, "'context_length' is 0"),
        ({"llama.vocab_size": 301}, "vocab_size is 301, but 'token_embd.weight' has 300 rows"),
        ({"llama.feed_forward_length": 65}, r"has shape \(64, 32\), the configuration requires \(65, 32\)"),
        ({"llama.attention.head_count": "four"}, "'attention.head_count' is 'four'"),
    ],
)
def test_inconsistent_metadata(metadata: dict[str, object], words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(tiny_gguf("llama", tmp_path / "model.gguf", seed=SEED, metadata=metadata))


def test_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        UnsupportedModelError, match=r"'mamba' is not supported; supported are llama, qwen2, qwen3"
    ):
        open_checkpoint(path)
