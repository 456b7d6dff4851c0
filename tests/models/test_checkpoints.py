"""Every family and source gives the weights and the shape of the model that was saved."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from specee.models import assemble
from specee.models.checkpoint import Checkpoint, open_checkpoint
from specee.models.table import shapes
from tests.models.tables import collect, widen
from tests.tiny_models import FAMILIES, tiny_folder, tiny_gguf, tiny_model

SEED = 20


def expected_tensors(family: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    state = tiny_model(family, seed=SEED, dtype=dtype).state_dict()
    return {name: tensor.float().numpy() for name, tensor in state.items()}


def assert_holds(checkpoint: Checkpoint, expected: dict[str, np.ndarray], tied: bool) -> None:
    """The table is exactly ``expected``, matched by the tail of the transformers names."""
    tails = {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    found = collect(checkpoint.slabs())
    assert {key: array.shape for key, array in found.items()} == shapes(checkpoint.config)
    unseen = set(expected) - ({"lm_head.weight"} if tied else set())
    for (role, layer), array in found.items():
        base = role.removesuffix("_bias")
        kind = "bias" if role.endswith("_bias") else "weight"
        if layer < 0:
            name = {"embed": "model.embed_tokens", "final_norm": "model.norm", "head": "lm_head"}[
                role
            ] + ".weight"
        else:
            block = "mlp" if base in ("gate", "up", "down") else "self_attn"
            tail = base if base in ("q_norm", "k_norm") else f"{base}_proj"
            name = f"model.layers.{layer}.{tails.get(role, f'{block}.{tail}')}.{kind}"
        np.testing.assert_array_equal(widen(array), expected[name], err_msg=name)
        unseen.discard(name)
    assert not unseen


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_folder(family: str, sharded: bool, tmp_path: Path) -> None:
    folder = tiny_folder(family, tmp_path, seed=SEED, sharded=sharded)
    assert len(list(folder.glob("*.safetensors"))) > sharded
    checkpoint = open_checkpoint(folder)
    assert_holds(checkpoint, expected_tensors(family), checkpoint.config.tied_head)
    assert checkpoint.format == "safetensors f32"
    assert (checkpoint.eos_token_ids, checkpoint.pad_token_id) == ((2,), 0)
    assert checkpoint.generation_defaults["bos_token_id"] == 1


@pytest.mark.parametrize(("dtype", "numpy_dtype"), [("bfloat16", np.uint16), ("float16", np.float16)])
def test_half_precision_stays_as_stored(dtype: str, numpy_dtype: type, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(tiny_folder("llama", tmp_path, seed=SEED, dtype=dtype))
    assert {slab.array.dtype for slab in checkpoint.slabs()} == {np.dtype(numpy_dtype)}
    assert_holds(checkpoint, expected_tensors("llama", dtype), tied=False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", ["llama_tied", "qwen2_sliding", "qwen3"])
def test_model_in_memory(family: str, dtype: str) -> None:
    checkpoint = open_checkpoint(tiny_model(family, seed=SEED, dtype=dtype))
    assert checkpoint.tokenizer is None
    assert_holds(checkpoint, expected_tensors(family, dtype), checkpoint.config.tied_head)


@pytest.mark.parametrize(
    "family", [name for name in FAMILIES if name not in ("qwen2_sliding", "qwen3_sliding")]
)
def test_gguf_equals_folder(family: str, tmp_path: Path) -> None:
    from_gguf = open_checkpoint(tiny_gguf(family, tmp_path / "model.gguf", seed=SEED))
    from_folder = open_checkpoint(tiny_folder(family, tmp_path, seed=SEED))
    if family == "mistral_full":  # nothing in the file tells it from Llama
        assert from_gguf.config.family == "llama"
    else:
        assert from_gguf.config == from_folder.config
    assert from_gguf.eos_token_ids == from_folder.eos_token_ids
    assert_holds(from_gguf, expected_tensors(family), from_gguf.config.tied_head)


@pytest.mark.parametrize("quantization", ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_gguf_quantisation(quantization: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(
        tiny_gguf("llama", tmp_path / "model.gguf", seed=SEED, quantization=quantization)
    )
    kind = gguf.GGMLQuantizationType[quantization]
    expected = {}
    for name, array in expected_tensors("llama").items():
        stored = gguf.quants.quantize(array, kind) if array.ndim > 1 else array
        expected[name] = gguf.quants.dequantize(stored, kind) if array.ndim > 1 else array
    assert_holds(checkpoint, expected, tied=False)
    assert checkpoint.format == f"gguf {quantization}"


def test_small_slabs_cover_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slabs smaller than a tensor, cut between heads where query and key rows are reordered."""
    monkeypatch.setattr(assemble, "SLAB_BYTES", 3 * 32 * 4)
    checkpoint = open_checkpoint(tiny_gguf("llama", tmp_path / "model.gguf", seed=SEED, quantization="Q8_0"))
    slabs = list(checkpoint.slabs())
    assert max(len(slab.array) for slab in slabs if slab.role == "embed") == 3
    assert {len(slab.array) for slab in slabs if slab.role == "q"} == {8}
    monkeypatch.undo()
    whole, cut = collect(checkpoint.slabs()), collect(slabs)
    for key, array in whole.items():
        np.testing.assert_array_equal(cut[key], array)


def test_windows(tmp_path: Path) -> None:
    windows = {name: open_checkpoint(tiny_model(name, seed=SEED)).config.windows for name in FAMILIES}
    assert windows["mistral"] == (8, 8, 8)
    assert windows["mistral_full"] == windows["llama"] == windows["qwen2"] == (0, 0, 0)
    assert windows["qwen2_sliding"] == (0, 6, 6, 6)
    assert windows["qwen3_sliding"] == (5, 0, 5)


def test_max_context_limits_and_refuses(tmp_path: Path) -> None:
    from specee.errors import CapacityError

    folder = tiny_folder("llama", tmp_path, seed=SEED)
    assert open_checkpoint(folder, max_context=100).config.max_position == 100
    with pytest.raises(CapacityError, match="a context of 513 was requested; the model supports 1 to 512"):
        open_checkpoint(folder, max_context=513)


def test_tied_head_stored_twice(tmp_path: Path) -> None:
    import safetensors.numpy as st

    from specee.errors import CheckpointError

    folder = tiny_folder("llama_tied", tmp_path, seed=SEED)
    tensors = st.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    st.save_file(tensors, folder / "model.safetensors")
    assert ("head", -1) not in collect(open_checkpoint(folder).slabs())
    tensors["lm_head.weight"][299, 31] += 1
    st.save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"'lm_head.weight' differs from 'model.embed_tokens.weight'"):
        list(open_checkpoint(folder).slabs())
