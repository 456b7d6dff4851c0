"""Logits and greedy texts are those of transformers: a tiny random model of every family, every backend.

Only fp32 is compared number by number: in bf16 transformers also rounds the residual stream, norms and
results of products, which specee keeps in fp32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import specee
from specee.integrations.transformers_model import to_transformers
from tests.engines import Engine, all_engines
from tests.tiny_models import FAMILIES, tiny_folder, tiny_model

pytestmark = pytest.mark.parametrize("engine", all_engines())
# fp32 promise for real models: every logit of 200+ token prompts within 2e-3.
LOGIT_TOLERANCE = 2e-3
# Where transformers' own two best logits are nearer than this, either token is right.
NEAR_TIE = 1e-3


def load(engine: Engine, source: object, monkeypatch: pytest.MonkeyPatch, **options: object) -> specee.Model:
    if engine.isa:
        monkeypatch.setenv("SPECEE_FORCE_ISA", engine.isa)
    return specee.load(source, backend=engine.backend, threads=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_greedy_text(engine: Engine, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tiny_model(family, seed=1)
    ours = load(engine, theirs, monkeypatch)
    prompt = np.random.default_rng(2).integers(3, 300, (1, 210))
    wanted = theirs(torch.from_numpy(prompt)).logits[0].detach().numpy()
    sequence = ours.backend.sequence(210)
    work = [(sequence, sequence.append(prompt[0].tolist()))]
    ours.backend.advance(work, ours.config.num_layers)
    assert np.abs(ours.backend.logits(work) - wanted).max() <= LOGIT_TOLERANCE
    length = 40
    text = ours.generate(prompt, max_new_tokens=length, eos_token_id=[])[0]
    assert len(text) == 210 + length
    check_greedy(theirs, text, 210)


def check_greedy(theirs: object, text: np.ndarray, prompt: int) -> None:
    """Every new token is transformers' best at its place, up to near-ties of the two best."""
    with torch.no_grad():
        logits = theirs(torch.from_numpy(text[None])).logits[0, prompt - 1 : -1].numpy()  # type: ignore[operator]
    chosen = np.take_along_axis(logits, text[prompt:, None], axis=1)[:, 0]
    top = np.sort(logits, axis=1)
    differs = chosen < top[:, -1]
    assert (top[differs, -1] - top[differs, -2] < NEAR_TIE).all()
    assert (chosen[differs] >= top[differs, -2]).all()


def test_a_wrong_token_is_noticed(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tiny_model("llama", seed=1)
    text = load(engine, theirs, monkeypatch).generate(
        np.array([[5, 6, 7]]), max_new_tokens=6, eos_token_id=[]
    )[0]
    check_greedy(theirs, text, 3)
    text[-1] = (text[-1] + 1) % 300
    with pytest.raises(AssertionError):
        check_greedy(theirs, text, 3)


def test_padded_batch_is_that_of_transformers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tiny_model("qwen2", seed=3)
    ours = load(engine, theirs, monkeypatch)
    ids = torch.randint(3, 300, (3, 12), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[0, :7], mask[2, :11] = 0, 0
    arguments = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    free = theirs.generate(ids, attention_mask=mask, **arguments, eos_token_id=299)
    stop = [int(free[0, 14]), int(free[1, 16])]
    wanted = theirs.generate(ids, attention_mask=mask, **arguments, eos_token_id=stop)
    result = ours.generate(ids, mask, **arguments, eos_token_id=stop)
    assert torch.equal(result, wanted)
    assert result.dtype == wanted.dtype


def test_streamer_sees_what_transformers_shows(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = tiny_model("llama", seed=5)
    seen: list[list[list[int]]] = []
    ids = torch.tensor([[5, 6, 7]])
    for generate in (theirs.generate, load(engine, theirs, monkeypatch).generate):
        streamer = Recorder()
        generate(ids, max_new_tokens=4, do_sample=False, streamer=streamer, eos_token_id=[299])
        seen.append(streamer.flat)
        assert streamer.ended == 1
    assert seen[0] == seen[1]


class Recorder:
    def __init__(self) -> None:
        self.flat: list[list[int]] = []
        self.ended = 0

    def put(self, value: torch.Tensor) -> None:
        self.flat.append(value.reshape(-1).tolist())

    def end(self) -> None:
        self.ended += 1


@pytest.mark.parametrize("family", FAMILIES)
def test_rebuilt_transformers_model_is_the_same(
    engine: Engine, family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What --compare runs is the model that the checkpoint came from."""
    ours = load(engine, tiny_folder(family, tmp_path, seed=6), monkeypatch)
    rebuilt, original = to_transformers(ours.checkpoint, "fp32"), tiny_model(family, seed=6)
    ids = torch.arange(3, 43)[None]
    assert torch.equal(rebuilt(ids).logits, original(ids).logits)
    assert next(to_transformers(ours.checkpoint, "bf16").parameters()).dtype == torch.bfloat16
