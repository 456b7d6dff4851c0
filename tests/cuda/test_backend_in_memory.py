"""A transformers model in memory: its bf16 matrices are used where they are, from load() to the kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import specee  # noqa: E402
from specee.backends import cuda as backend_module  # noqa: E402
from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.cuda_weights import bytes_there  # noqa: E402
from specee.cuda.packing import PackedWeights  # noqa: E402
from specee.errors import CheckpointError  # noqa: E402
from specee.models.checkpoint import Checkpoint, open_checkpoint  # noqa: E402
from specee.models.pretrained import PretrainedSource  # noqa: E402
from specee.models.table import matrices  # noqa: E402
from tests.cuda.emulator import LibraryLauncher, compiler, fresh_seed  # noqa: E402
from tests.tiny_models import random_prompt, tiny_model  # noqa: E402

SIZES = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}


def made(family: str = "llama", dtype: str = "bfloat16") -> Any:
    return tiny_model(family, seed=4, dtype=dtype, **SIZES)


def emulated(*arguments: Any, given: Any = None, device: str = "cuda") -> CudaBackend:
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    launcher = LibraryLauncher(fresh_seed("order of threads"))
    return CudaBackend(*arguments, device="cpu", given=given, launcher=launcher)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_matrices_are_the_models_own(family: str) -> None:
    """qwen2's head is its embedding, and both names are of one tensor."""
    model = made(family)
    checkpoint = open_checkpoint(model)
    formats = checkpoint.formats("bf16")
    given = checkpoint.tensors_on("cpu", formats)
    assert set(given) == set(matrices(checkpoint.config))
    own = {parameter.data_ptr() for parameter in model.parameters()}
    assert {tensor.data_ptr() for tensor in given.values()} <= own
    left = {(slab.role, slab.layer) for slab in checkpoint.slabs(formats, given)}
    assert left.isdisjoint(given)
    rest = emulated(checkpoint.config, checkpoint.slabs(formats, given), "bf16", formats, given=given)
    read = emulated(checkpoint.config, checkpoint.slabs(formats), "bf16", formats)
    logits = []
    for backend in (rest, read):
        sequence = backend.sequence(8)
        work = [(sequence, sequence.append([5, 6, 7]))]
        backend.advance(work, 2)
        logits.append(backend.logits(work))
    assert np.array_equal(*logits)


def test_only_what_is_stored_as_it_is_stays() -> None:
    checkpoint = open_checkpoint(made())
    assert checkpoint.tensors_on("cpu", checkpoint.formats("int8")) == {}
    assert checkpoint.tensors_on("cuda", checkpoint.formats("bf16")) == {}
    single = open_checkpoint(made(dtype="float32"))
    assert single.tensors_on("cpu", single.formats("bf16")) == {}


def test_packed_matrices_are_used_where_they_are() -> None:
    """As well as those that the backend packs by itself; of another shape or format they are refused."""
    checkpoint = open_checkpoint(made())
    config, formats = checkpoint.config, checkpoint.formats("int8")
    read = emulated(config, checkpoint.slabs(formats), "int8", formats)
    given = read._table.tensors | read._table.packed
    again = emulated(config, (), "int8", formats, given=given)
    assert again._table.matrix("up", 1) is read._table.matrix("up", 1)
    logits = []
    for backend in (again, read):
        sequence = backend.sequence(8)
        work = [(sequence, sequence.append([5, 6, 7]))]
        backend.advance(work, 2)
        logits.append(backend.logits(work))
    assert np.array_equal(*logits)
    assert bytes_there(given, torch.device("cpu")) == sum(
        part.numel() * part.element_size()
        for one in given.values()
        for part in ((one.data, one.scales) if isinstance(one, PackedWeights) else (one,))
    )
    for key, wrong in ((("up", 1), given["down", 1]), (("attn_norm", 0), given["up", 1])):
        with pytest.raises(CheckpointError, match=f"matrix '{key[0]}' of layer {key[1]}.*packed as int8"):
            emulated(config, (), "int8", formats, given=given | {key: wrong})
    away = replace(given["up", 1], scales=given["up", 1].scales.to("meta"))
    with pytest.raises(CheckpointError, match=r"layer 1 is packed on .*meta.*: allowed is cpu; put it there"):
        emulated(config, (), "int8", formats, given=given | {("up", 1): away})
    bf16 = checkpoint.formats("bf16")
    with pytest.raises(CheckpointError, match=r"packed as int8, cannot be used: .* stored BF16"):
        emulated(config, (), "bf16", bf16, given=given)


def test_values_that_are_no_numbers_are_refused() -> None:
    model = made()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = float("nan")
    checkpoint = open_checkpoint(model)
    with pytest.raises(CheckpointError, match=r"up_proj.*NaN or infinite"):
        checkpoint.tensors_on("cpu", checkpoint.formats("bf16"))


def test_load_and_generate(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a model to tokens, as on a device: the same with and without speculation."""
    monkeypatch.setattr("specee.backends.select.missing", lambda name: None)
    monkeypatch.setattr("specee.backends.select.cuda_missing", lambda: None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    found: list[Any] = []

    def here(self: Checkpoint, device: str, formats: Any) -> Any:
        found.append(tensors_on(self, "cpu", formats))
        return found[-1]

    tensors_on = Checkpoint.tensors_on
    monkeypatch.setattr(Checkpoint, "tensors_on", here)
    monkeypatch.setattr(backend_module, "CudaBackend", emulated)
    model = specee.load(made(), device="cuda")
    backend = model.backend
    assert isinstance(backend, CudaBackend)
    assert backend.name == "cuda"
    key = ("down", 1)
    assert backend._table.matrix(*key).data_ptr() == found[0][key].data_ptr()
    prompt = random_prompt(1, 6)
    plain = model.generate(prompt, max_new_tokens=6, do_sample=True, seed=3, eos_token_id=[])
    for policy in ("layerskip:exit_layer=1", "prompt-lookup"):
        assert (
            model.generate(prompt, max_new_tokens=6, do_sample=True, seed=3, eos_token_id=[], policy=policy)
            == plain
        )


@pytest.mark.parametrize(("device", "asked"), [("cuda", "cuda:1"), ("cuda:0", "cuda:0")])
def test_device_cuda_is_the_current_one_for_all(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: str
) -> None:
    """Tensors are looked for, and the backend made, on one and the same device: the first would be copied."""
    monkeypatch.setattr("specee.backends.select.missing", lambda name: None)
    monkeypatch.setattr("specee.backends.select.cuda_missing", lambda: None)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    seen: list[str] = []

    def looked(self: Checkpoint, device: str, formats: Any) -> Any:
        seen.append(device)
        return {}

    def backend(*_: Any, device: str, **__: Any) -> Any:
        seen.append(device)
        raise CheckpointError("far enough")

    monkeypatch.setattr(Checkpoint, "tensors_on", looked)
    monkeypatch.setattr(backend_module, "CudaBackend", backend)
    with pytest.raises(CheckpointError, match="far enough"):
        specee.load(made(), device=device)
    assert seen == [asked, asked]


class Elsewhere:
    """A tensor that says it is on another device."""

    def __init__(self, tensor: Any, device: str) -> None:
        self._tensor, self.device = tensor, torch.device(device)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tensor, name)


def test_only_matrices_on_that_very_device_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(made())
    formats = checkpoint.formats("bf16")
    monkeypatch.setattr(
        PretrainedSource, "tensor", lambda self, name: Elsewhere(self._state[name].detach(), "cuda:1")
    )
    isfinite = torch.isfinite
    monkeypatch.setattr(torch, "isfinite", lambda one: isfinite(one._tensor))
    assert set(checkpoint.tensors_on("cuda:1", formats)) == set(matrices(checkpoint.config))
    assert checkpoint.tensors_on("cuda:0", formats) == {}
    assert checkpoint.tensors_on("cpu", formats) == {}
