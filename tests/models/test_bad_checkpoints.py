"""Bad checkpoints: a typed error that names file, value and what is allowed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy as st

from specee.errors import CheckpointError, ConfigurationError, DownloadError, UnsupportedModelError
from specee.models.checkpoint import open_checkpoint
from tests.tiny_models import tiny_folder, tiny_gguf, tiny_model

SEED = 21


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value != "REMOVE"}))


def edit_tensors(folder: Path, change: Any) -> None:
    tensors = {name: array.copy() for name, array in st.load_file(folder / "model.safetensors").items()}
    change(tensors)
    st.save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"architectures": ["GPT2LMHeadModel"]},
            ["'GPT2LMHeadModel'", "LlamaForCausalLM", "Qwen3ForCausalLM"],
        ),
        ({"hidden_act": "gelu"}, ["hidden_act 'gelu'", "'silu'"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["'gptq'", "GGUF"]),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, ["'yarn'", "'llama3'"]),
        ({"rope_parameters": "REMOVE", "rope_scaling": {"type": "dynamic", "factor": 2.0}}, ["'dynamic'"]),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
            ["partial_rotary_factor 0.5"],
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, ["one flat set"]),
    ],
)
def test_unsupported_options(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED)
    edit_config(folder, **changes)
    with pytest.raises(UnsupportedModelError) as caught:
        open_checkpoint(folder)
    for word in [str(folder / "config.json"), *words]:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"hidden_size": "REMOVE"}, ["'hidden_size' is missing"]),
        ({"num_hidden_layers": 0}, ["'num_hidden_layers' is 0", "an integer from 1"]),
        ({"vocab_size": 10**12}, ["'vocab_size' is 1000000000000"]),
        ({"num_key_value_heads": 3}, ["4 query heads cannot share 3"]),
        ({"head_dim": 7}, ["head size 7 is odd"]),
        ({"rms_norm_eps": -1.0}, ["'rms_norm_eps' is -1.0"]),
        ({"rope_parameters": {"rope_type": "linear"}}, ["'factor' is missing"]),
        ({"intermediate_size": 65}, ["has shape (64, 32), the configuration requires (65, 32)"]),
        ({"num_hidden_layers": 4}, ["9 of 39 tensors are missing", "model.layers.3.input_layernorm.weight"]),
        ({"num_hidden_layers": 2}, ["9 tensors have no place", "model.layers.2."]),
        ({"tie_word_embeddings": "yes"}, ["'tie_word_embeddings' is 'yes'"]),
        ({"attention_bias": True}, ["12 of 42 tensors are missing"]),
    ],
)
def test_inconsistent_config(changes: dict[str, Any], words: list[str], tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED)
    edit_config(folder, **changes)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    for word in [str(folder), *words]:
        assert word in str(caught.value)


def test_transformers_4_rope_layout(tmp_path: Path) -> None:
    folder = tiny_folder("llama_rope3", tmp_path, seed=SEED)
    new = open_checkpoint(folder).config.rope
    values = json.loads((folder / "config.json").read_text())["rope_parameters"]
    theta = values.pop("rope_theta")
    edit_config(folder, rope_parameters="REMOVE", rope_theta=theta, rope_scaling=values)
    assert open_checkpoint(folder).config.rope == new
    assert (new.scaling, new.theta, new.original_max_position) == ("llama3", 500000.0, 64)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_must_be_finite(value: float, dtype: str, tmp_path: Path) -> None:
    import torch

    model = tiny_model("llama", seed=SEED, dtype=dtype)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[7, 5] = value
    model.save_pretrained(tmp_path)
    for source in (tmp_path, model):
        checkpoint = open_checkpoint(source)
        with pytest.raises(
            CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight' holds a NaN.* at \[7, 5\]"
        ):
            list(checkpoint.slabs())


def test_largest_finite_weights_pass(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED)
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill(np.finfo(np.float32).max))
    assert sum(1 for _ in open_checkpoint(folder).slabs()) == 30


def test_wrong_dtype_and_shape(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED)

    def to_float64(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float64)

    edit_tensors(folder, to_float64)
    with pytest.raises(
        UnsupportedModelError, match=r"'model\.norm\.weight' has dtype F64; supported are F32, F16"
    ):
        open_checkpoint(folder)

    def transposed(tensors: dict[str, np.ndarray]) -> None:
        tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.float32)
        name = "model.layers.0.mlp.down_proj.weight"
        tensors[name] = np.ascontiguousarray(tensors[name].T)

    edit_tensors(folder, transposed)
    with pytest.raises(CheckpointError, match=r"has shape \(64, 32\), the configuration requires \(32, 64\)"):
        open_checkpoint(folder)


def test_unknown_tensor_is_refused(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED)
    edit_tensors(folder, lambda tensors: tensors.update(adapter=np.zeros(3, np.float32)))
    with pytest.raises(
        UnsupportedModelError, match="1 tensors have no place in this architecture: 'adapter'"
    ):
        open_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, 0.999])
def test_truncated_file(keep: float, tmp_path: Path) -> None:
    path = tiny_folder("llama", tmp_path, seed=SEED) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a complete safetensors file"):
        open_checkpoint(path.parent)


def test_file_that_shrinks_after_opening(tmp_path: Path) -> None:
    path = tiny_folder("llama", tmp_path, seed=SEED) / "model.safetensors"
    checkpoint = open_checkpoint(path.parent)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: ends after 2000 bytes"):
        list(checkpoint.slabs())


def test_shards(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED, sharded=True)
    shards = sorted(folder.glob("model-*.safetensors"))
    content = shards[1].read_bytes()
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"{shards[1].name}: this shard is missing"):
        open_checkpoint(folder)
    shards[1].write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=rf"{shards[1].name}: not a complete safetensors file"):
        open_checkpoint(folder)
    shards[1].write_bytes(shards[0].read_bytes())
    with pytest.raises(CheckpointError, match=rf"{shards[1].name}: tensor .* should be in this file"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "index", ["{", "[]", '{"weight_map": {"a": "../secret.safetensors"}}', '{"weight_map": 3}']
)
def test_bad_shard_index(index: str, tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED, sharded=True)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"index\.json: not a usable shard index"):
        open_checkpoint(folder)


def test_folders_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: not found"):
        open_checkpoint(tmp_path)
    folder = tiny_folder("llama", tmp_path, seed=SEED)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin, a pickled format that is not read"):
        open_checkpoint(folder)
    (folder / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"config\.json: holds a list"):
        open_checkpoint(folder)


def test_tokenizer_of_another_model(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED, vocab_size=299)
    with pytest.raises(
        CheckpointError, match=r"has token id 299, but the model has 299 embeddings \(ids 0 to 298\)"
    ):
        open_checkpoint(folder)
    path = tiny_gguf("llama", tmp_path / "model.gguf", seed=SEED, vocab_size=299)
    with pytest.raises(CheckpointError, match="has token id 299"):
        open_checkpoint(path)


def test_end_of_sequence_id_outside_the_vocabulary(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=SEED)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 300]}')
    with pytest.raises(
        CheckpointError, match=r"eos_token_id is \[2, 300\]; ids must be integers from 0 to 299"
    ):
        open_checkpoint(folder)


def test_sources_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="no such file or folder, and not a hub id"):
        open_checkpoint(str(tmp_path / "absent" / "model.gguf"))
    with pytest.raises(ConfigurationError, match="source has type int; it must be None, a folder"):
        open_checkpoint(7)  # type: ignore[arg-type]
    import huggingface_hub

    def unreachable(name: str, **_options: Any) -> str:
        raise OSError(f"cannot reach the hub for {name}")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    with pytest.raises(DownloadError, match=r"hub model 'owner/name'.*OSError.*pass its local folder"):
        open_checkpoint("owner/name")


def test_hub_id_opens_the_fetched_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    folder = tiny_folder("llama", tmp_path, seed=SEED)
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, *, allow_patterns: list[str], **_options: Any) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    checkpoint = open_checkpoint("owner/name")
    assert checkpoint.source == "hub model owner/name"
    assert asked[0][0] == "owner/name"
    assert {"config.json", "model*.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(asked[0][1])


def test_model_in_memory_that_cannot_be_read() -> None:
    import torch
    import transformers

    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=20)
    with pytest.raises(
        UnsupportedModelError, match="GPT2LMHeadModel in memory: architecture 'GPT2LMHeadModel'"
    ):
        open_checkpoint(transformers.GPT2LMHeadModel(config))
    with torch.device("meta"):
        hollow = transformers.AutoModelForCausalLM.from_config(tiny_model("llama", seed=SEED).config)
    with pytest.raises(CheckpointError, match="is on the meta device and has no data"):
        open_checkpoint(hollow)
    with pytest.raises(
        UnsupportedModelError, match=r"has dtype torch\.float64; supported are F32, F16, BF16"
    ):
        open_checkpoint(tiny_model("llama", seed=SEED).double())


def test_an_absurd_number_of_layers_is_refused_before_they_are_listed(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2**31 - 1}))
    with pytest.raises(CheckpointError, match=r"num_hidden_layers.*1 to 10000"):
        open_checkpoint(folder)
