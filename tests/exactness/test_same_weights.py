"""The model that ``--compare`` and the benches run in transformers has the weights that ours stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import specee
from specee.backends import reference_math
from specee.integrations.transformers_model import to_transformers
from specee.models.checkpoint import open_checkpoint
from specee.models.families import by_name
from tests.exactness.test_against_transformers import LOGIT_TOLERANCE
from tests.gguf_files import tensors_of, write_gguf
from tests.models.tables import collect
from tests.quantised import to_floats
from tests.random_model import SHAPES, random_model
from tests.tiny_models import tiny_folder, tiny_gguf

QUANTISATIONS = [
    ("packed", "gguf"), ("int8", "gguf"), ("int8", "folder"), ("int4", "folder"), ("bf16", "folder"),
]  # fmt: skip


def source(kind: str, path: Path) -> Path:
    if kind == "folder":
        return tiny_folder("llama_bias", path, seed=8, dtype="float32")
    return tiny_gguf("llama_bias", path / "model.gguf", seed=8, quantization="Q4_1")


@pytest.mark.parametrize(("weights", "kind"), QUANTISATIONS)
def test_parameters_are_the_stored_values(weights: str, kind: str, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(source(kind, tmp_path))
    formats = checkpoint.formats(weights)  # type: ignore[arg-type]
    names = by_name(checkpoint.config.family).hf_names
    theirs = dict(to_transformers(checkpoint, weights, "fp32").named_parameters())  # type: ignore[arg-type]
    rounded = dict(to_transformers(checkpoint, weights).named_parameters())  # type: ignore[arg-type]
    for (role, layer), array in collect(checkpoint.slabs(formats)).items():
        name, form = names[role].format(layer), formats.get((role, layer), "F32")
        columns = theirs[name].shape[-1]
        values = torch.from_numpy(to_floats(array, form, columns) if array.dtype == np.uint8 else array)
        wanted = values.to(torch.bfloat16).float() if form == "BF16" else values
        assert theirs[name].dtype == torch.float32
        assert torch.equal(theirs[name], wanted), name
        assert torch.equal(rounded[name], wanted.to(torch.bfloat16)), name


@pytest.mark.parametrize(("weights", "kind"), QUANTISATIONS)
def test_without_rounded_inputs_both_compute_the_same(
    weights: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what enters a product tells our packed model from transformers' dequantised one."""
    ours = specee.load(source(kind, tmp_path), weights=weights, backend="reference", kv_dtype="fp32")  # type: ignore[arg-type]
    theirs = to_transformers(ours.checkpoint, ours.backend.weights, "fp32")
    prompt = list(range(3, 83))

    def distance() -> float:
        sequence = ours.backend.sequence(80, ours.kv_dtype)
        work = [(sequence, sequence.append(prompt))]
        ours.backend.advance(work, ours.config.num_layers)
        return float(np.abs(ours.backend.logits(work) - wanted).max())

    wanted = theirs(torch.tensor([prompt])).logits[0].detach().numpy()
    assert distance() > LOGIT_TOLERANCE
    monkeypatch.setattr(reference_math, "product_input", lambda x, _: x)
    assert distance() <= LOGIT_TOLERANCE


def test_files_of_other_types(tmp_path: Path) -> None:
    model = random_model(SHAPES["wide"], seed=9, kind="k-quants")
    checkpoint = open_checkpoint(write_gguf(tmp_path / "m.gguf", model.config, tensors_of(model)))
    names = by_name("llama").hf_names
    theirs = dict(to_transformers(checkpoint, "packed", "fp32").named_parameters())
    for (role, layer), values in model.weights.items():
        assert np.array_equal(theirs[names[role].format(layer)].detach().numpy(), values)
