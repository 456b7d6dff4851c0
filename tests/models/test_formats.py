"""What matrices are stored in, and the slabs that come for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest

from specee.errors import CheckpointError, ConfigurationError, UnsupportedModelError
from specee.models import assemble
from specee.models.checkpoint import Checkpoint, open_checkpoint
from specee.models.formats import made_formats, packed_formats
from specee.models.table import matrices, shapes
from tests.gguf_files import tensors_of, write_gguf
from tests.models.tables import collect, widen
from tests.quantised import from_floats, put_scales, to_floats
from tests.random_model import CONFIGS, SHAPES, random_model
from tests.tiny_models import tiny_folder, tiny_gguf, tiny_model

ALIGNED = CONFIGS["aligned"]
UNTIED = replace(ALIGNED, tied_head=False)


def gguf_of(path: Path, name: str, kind: str) -> Checkpoint:
    model = random_model(SHAPES[name], seed=1, kind=kind)
    return open_checkpoint(write_gguf(path / "model.gguf", model.config, tensors_of(model)))


@pytest.mark.parametrize(
    ("weights", "outer", "inner"),
    [("fp32", "F32", "F32"), ("bf16", "BF16", "BF16"), ("int8", "Q8_0", "Q8_0"), ("int4", "Q8_0", "Q4_1")],
)
def test_made_formats(weights: str, outer: str, inner: str) -> None:
    formats = made_formats(UNTIED, weights)
    assert formats.keys() == matrices(UNTIED).keys()
    assert {formats[key] for key in formats if key[1] < 0} == {outer}
    assert {formats[key] for key in formats if key[1] >= 0} == {inner}


@pytest.mark.parametrize("weights", ["packed", "fp16", ""])
def test_formats_that_cannot_be_made(weights: str) -> None:
    with pytest.raises(ConfigurationError, match=f"weights='{weights}'.*'int8', 'int4'"):
        made_formats(ALIGNED, weights)  # type: ignore[arg-type]


def packed(config: object = UNTIED, **changes: str) -> dict[str, str]:
    """Formats of layer 1, and of what has no layer, in a Q4_1 file with some other types in layer 1."""
    types = dict.fromkeys(shapes(config), "Q4_1")  # type: ignore[arg-type]
    types |= {(role, -1 if role in ("embed", "head") else 1): kind for role, kind in changes.items()}
    formats = packed_formats(config, types)  # type: ignore[arg-type]
    assert formats.keys() == matrices(config).keys()  # type: ignore[arg-type]
    assert {kind for (_, layer), kind in formats.items() if layer in (0, 2)} == {"Q4_1"}
    return {role: kind for (role, layer), kind in formats.items() if layer in (-1, 1) and kind != "Q4_1"}


def test_a_file_keeps_its_formats() -> None:
    assert packed() == {}
    kept = {"embed": "Q8_0", "head": "F16", "o": "Q4_0", "down": "Q6_K"}
    assert packed(**kept) == kept
    kept = {"embed": "BF16", "head": "F32", "o": "Q4_K", "down": "Q5_K"}
    assert packed(**kept) == kept


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q5_0", "Q5_1", "IQ4_NL", "MXFP4"])
def test_types_without_kernels_become_bf16(kind: str) -> None:
    assert packed(down=kind, embed=kind) == {"down": "BF16", "embed": "BF16"}
    assert packed(gate=kind, up=kind) == {"gate": "BF16", "up": "BF16"}


def test_gate_and_up_share_a_format() -> None:
    assert packed(gate="Q4_K", up="Q4_K") == {"gate": "Q4_K", "up": "Q4_K"}
    assert packed(up="Q8_0") == {"gate": "F32", "up": "F32"}
    assert packed(gate="Q2_K", up="Q5_0") == {"gate": "BF16", "up": "BF16"}


def test_q_k_v_differ_where_heads_are_whole_vectors() -> None:
    assert packed(v="Q6_K", k="F16") == {"v": "Q6_K", "k": "F16"}
    narrow = replace(UNTIED, head_dim=8)
    assert packed(narrow, v="Q6_K") == {"q": "F32", "k": "F32", "v": "F32"}
    assert packed(narrow, q="Q8_0", k="Q8_0", v="Q8_0") == {"q": "Q8_0", "k": "Q8_0", "v": "Q8_0"}


@pytest.mark.parametrize("rows", [10**6, 40])
@pytest.mark.parametrize(
    ("name", "kind"), [("aligned", "q4_0"), ("aligned", "mixed"), ("aligned", "floats"), ("wide", "k-quants")]
)
def test_packed_slabs_are_the_blocks_of_the_file(
    name: str, kind: str, rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In rotate-half order, whole or cut between heads."""
    monkeypatch.setattr(assemble, "SLAB_BYTES", rows * 4 * SHAPES[name].hidden_size)
    model = random_model(SHAPES[name], seed=1, kind=kind)
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.gguf", model.config, tensors_of(model)))
    formats = checkpoint.formats("packed")
    assert formats == model.formats
    slabs = list(checkpoint.slabs(formats))
    assert {(slab.role, slab.layer): slab.format for slab in slabs if slab.array.ndim == 2} == formats
    for key, array in collect(slabs).items():
        wanted = model.blocks.get(key, model.weights[key])
        assert np.array_equal(array if array.dtype == np.uint8 else widen(array), wanted), key


@pytest.mark.parametrize("kind", ["mixed", "floats"])
def test_floats_of_a_packed_file(kind: str, tmp_path: Path) -> None:
    checkpoint = gguf_of(tmp_path, "aligned", kind)
    model = random_model(ALIGNED, seed=1, kind=kind)
    for formats in (None, checkpoint.formats("fp32"), checkpoint.formats("bf16")):
        for key, array in collect(checkpoint.slabs(formats)).items():
            assert np.array_equal(widen(array), model.weights[key]), key


def test_formats_of_mixed_types(tmp_path: Path) -> None:
    """Blocks where the format is kept, float32 where it is not: nothing else is touched."""
    model = random_model(UNTIED, seed=2, kind="mixed")
    tensors = tensors_of(model)
    rng = np.random.default_rng(3)
    other = {("q", 0): "Q5_0", ("up", 1): "Q8_0", ("v", 2): "Q8_0", ("head", -1): "Q5_1"}
    for key, kind in other.items():
        rows = rng.normal(0, 0.2, model.weights[key].shape).astype(np.float32)
        tensors[key] = (kind, gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind]))
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.gguf", UNTIED, tensors))
    formats = checkpoint.formats("packed")
    changed = {key: kind for key, kind in formats.items() if kind != model.formats[key]}
    stored = {("q", 0): "BF16", ("up", 1): "F32", ("gate", 1): "F32", ("v", 2): "Q8_0", ("head", -1): "BF16"}
    assert changed == stored
    for key, array in collect(checkpoint.slabs(formats)).items():
        kind, data = tensors[key]
        if kind in ("F32", "F16") or formats[key] == kind:
            assert np.array_equal(array, data), key
        else:
            values = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[kind])
            assert array.dtype == np.float32
            assert np.array_equal(array, values), key


@pytest.mark.parametrize("source", ["folder", "memory", "gguf"])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_quantised_at_load(weights: str, source: str, tmp_path: Path) -> None:
    """Each matrix is what gguf makes of its float values, whatever they come from."""
    if source == "gguf":
        path = tiny_gguf("llama", tmp_path / "model.gguf", seed=4, quantization="Q5_0")
        checkpoint = open_checkpoint(path)
    else:
        model = tiny_model("llama", seed=4, dtype="bfloat16", intermediate_size=72)
        folder = tiny_folder("llama", tmp_path, seed=4, dtype="bfloat16", intermediate_size=72)
        checkpoint = open_checkpoint(folder if source == "folder" else model)
    formats = checkpoint.formats(weights)  # type: ignore[arg-type]
    floats, stored = collect(checkpoint.slabs()), collect(checkpoint.slabs(formats))
    assert floats.keys() == stored.keys()
    for key, array in stored.items():
        if key in formats:
            assert np.array_equal(array, from_floats(widen(floats[key]), formats[key])), key
        else:
            assert np.array_equal(array, floats[key]), key


@pytest.mark.parametrize(
    ("weights", "worst"),
    # Half a step of the block's largest value (int8) or of its range (int4), and the fp16 rounding of scales.
    [("int8", 0.51 / 127 + 2**-11), ("int4", 0.51 / 15 + 2**-9)],
)
def test_quantised_values_are_near(weights: str, worst: float, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_folder("llama", tmp_path, seed=5))
    formats = checkpoint.formats(weights)  # type: ignore[arg-type]
    floats, stored = collect(checkpoint.slabs()), collect(checkpoint.slabs(formats))
    for key, form in formats.items():
        values = to_floats(stored[key], form, floats[key].shape[1])
        span = np.ptp(floats[key]) if form == "Q4_1" else np.abs(floats[key]).max()
        assert np.abs(values - floats[key]).max() <= worst * span, key


@pytest.mark.parametrize(
    ("make", "natural"),
    [
        (lambda path: tiny_gguf("llama", path / "m.gguf", seed=6, quantization="Q8_0"), "packed"),
        (lambda path: tiny_gguf("llama", path / "m.gguf", seed=6), "packed"),
        (lambda path: tiny_folder("llama", path, seed=6), "fp32"),
        (lambda path: tiny_folder("llama", path, seed=6, dtype="bfloat16"), "bf16"),
        (lambda path: tiny_folder("llama", path, seed=6, dtype="float16"), "bf16"),
    ],
)
def test_natural_weights(make: object, natural: str, tmp_path: Path) -> None:
    assert open_checkpoint(make(tmp_path)).natural_weights == natural  # type: ignore[operator]


def test_packed_needs_a_gguf_file(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=6)
    for source, name in ((folder, str(folder)), (tiny_model("llama", seed=6), "LlamaForCausalLM in memory")):
        with pytest.raises(ConfigurationError, match=r"weights='packed'.*'int8' or 'int4'") as caught:
            open_checkpoint(source).formats("packed")
        assert name in str(caught.value)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    ("name", "kind", "key", "at"),
    [
        ("aligned", "q4_0", ("down", 1), 0),
        ("aligned", "mixed", ("down", 1), 0),
        ("aligned", "mixed", ("down", 1), 2),
        ("aligned", "mixed", ("embed", -1), 0),
        ("wide", "k-quants", ("o", 1), 0),
        ("wide", "k-quants", ("o", 1), 2),
        ("wide", "k-quants", ("gate", 1), 0),
        ("wide", "k-quants", ("gate", 1), 2),
        ("wide", "k-quants", ("down", 1), 208),
    ],
)
def test_scales_must_be_finite(
    name: str, kind: str, key: tuple[str, int], at: int, value: float, tmp_path: Path
) -> None:
    """In every format of blocks, stored packed or not."""
    config = replace(SHAPES[name], hidden_size=512, intermediate_size=512, head_dim=128)
    model = random_model(config, seed=7, kind=kind)
    block = {"q4_0": 32, "mixed": 32, "k-quants": 256}[kind]
    blocks = model.blocks[key].reshape(len(model.blocks[key]), 512 // block, -1)
    put_scales(blocks[9:10, 1:2], at, np.full((1, 1), value))
    checkpoint = open_checkpoint(write_gguf(tmp_path / "model.gguf", config, tensors_of(model)))
    place = rf"holds a NaN or infinite weight at \[9, {block}\]"
    for weights in ("packed", "bf16", "int4"):
        with pytest.raises(CheckpointError, match=place):
            list(checkpoint.slabs(checkpoint.formats(weights)))  # type: ignore[arg-type]


def test_weights_too_large_for_sixteen_bit_scales(tmp_path: Path) -> None:
    """What bf16 holds need not fit a block: an error, not infinities."""
    import torch

    model = tiny_model("llama", seed=8)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[7, 40] = 3e7
    checkpoint = open_checkpoint(model)
    list(checkpoint.slabs(checkpoint.formats("bf16")))
    for weights, form in (("int8", "Q8_0"), ("int4", "Q4_1")):
        with pytest.raises(CheckpointError, match=rf"down_proj.* row 7, from column 32 on.*{form}.*'bf16'"):
            list(checkpoint.slabs(checkpoint.formats(weights)))  # type: ignore[arg-type]


def test_quantised_vectors_are_refused(tmp_path: Path) -> None:
    tensors = tensors_of(random_model(ALIGNED, seed=9, kind="mixed"))
    tensors["attn_norm", 1] = ("Q8_0", gguf.quants.quantize(
        np.ones(64, np.float32), gguf.GGMLQuantizationType.Q8_0
    ))  # fmt: skip
    with pytest.raises(UnsupportedModelError, match=r"blk\.1\.attn_norm.* has dtype Q8_0; supported are F32"):
        open_checkpoint(write_gguf(tmp_path / "model.gguf", ALIGNED, tensors))
