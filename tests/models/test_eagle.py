"""Published EAGLE heads: read, refused, and drafting as an implementation of the paper does."""

from __future__ import annotations

import json
import math
import pickle
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

import specee
from specee.backends.protocol import ChainCall
from specee.cli import main
from specee.errors import CheckpointError, ConfigurationError, SpeceeError, UnsupportedModelError
from specee.fitting import limits
from specee.fitting.drafter import Drafter
from specee.fitting.limits import LEAST, Footprint
from specee.fitting.pipeline import fit
from specee.fitting.plan import Plan
from specee.models.drafter_parts import FITTED
from specee.models.eagle import read_eagle
from specee.models.speculator import fingerprint, read_speculator
from specee.types import Sampling
from tests.models.eagle_head import Eagle, made
from tests.tiny_models import tiny_folder

TEXT = [5, 17, 200, 33, 4, 250, 61]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3)


@pytest.fixture
def seed() -> int:
    seed = random.randrange(2**31)
    print("seed", seed)
    return seed


class World:
    """States, embedding and head of the model, as transformers has them."""

    def __init__(self, source: Path) -> None:
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()

    @torch.no_grad()
    def chain(self, eagle: Eagle, text: list[int], length: int) -> Iterator[tuple[int, Tensor]]:
        """Greedy drafts of the head after ``text``, each with the chances that it was drawn from."""
        features = self.model.model(torch.tensor([text])).last_hidden_state[0, :-1]
        tokens = text[1:]
        for _ in range(length):
            embedded = self.model.model.embed_tokens(torch.tensor(tokens))
            given = eagle(embedded, features)[-1]
            chances = self.model.lm_head(given).softmax(-1)
            token = int(chances.argmax())
            yield token, chances
            tokens, features = [*tokens, token], torch.cat((features, given[None]))


@dataclass
class Compared:
    """Drafts beside those of a head, each chain up to where they part; and by how much chances differ."""

    agreed: int = 0
    total: int = 0
    errors: list[float] = field(default_factory=list)

    def see(self, chain: tuple[list[int], list[float]], wanted: Iterator[tuple[int, Tensor]]) -> None:
        for token, confidence, (right, chances) in zip(*chain, wanted, strict=False):
            self.total += 1
            self.agreed += token == right
            self.errors.append(abs(confidence - float(chances[token])))
            if token != right:
                break


def parts_of(folder: Path, source: Path) -> Any:
    return read_eagle(folder, specee.load(source, threads=1).checkpoint)


@pytest.mark.parametrize(
    ("family", "bias", "form"), [("llama", True, "safetensors"), ("llama_tied", False, "bin")]
)
def test_a_block_computes_what_the_head_does(
    family: str, bias: bool, form: str, tmp_path: Path, seed: int
) -> None:
    """In torch, in fp32: to rounding. An order of fc's inputs that is not EAGLE's is told apart."""
    source = tiny_folder(family, tmp_path / "model", seed=seed)
    eagle = made(tmp_path / "head", source, bias=bias, form=form, seed=seed)
    model, world = specee.load(source, weights="fp32", threads=1), World(source)
    parts = read_eagle(tmp_path / "head", model.checkpoint)
    state = model.backend.sequence(len(TEXT))
    slots = list(state.append(TEXT))
    model.backend.advance([(state, slots)], model.config.num_layers)
    states = torch.from_numpy(model.backend.hidden([(state, slots)]))
    with torch.no_grad():
        embedded = world.model.model.embed_tokens(torch.tensor(TEXT[1:]))
        wanted = eagle(embedded, world.model.model(torch.tensor([TEXT])).last_hidden_state[0, :-1])
        scale = float(wanted.abs().max())

        def off(block: Drafter) -> float:
            (given,) = block(embedded[None], block.fused(states[None, :-1, None]), 1)
            return float((given[0] - wanted).abs().max()) / scale

        assert off(Drafter.of(parts, model.config)) < 1e-4
        size = model.config.hidden_size
        swapped = replace(parts, fc=np.concatenate((parts.fc[:, size:], parts.fc[:, :size]), 1))
        assert off(Drafter.of(swapped, model.config)) > 0.05
        if bias:
            assert off(Drafter.of(replace(parts, fc_bias=0 * parts.fc_bias), model.config)) > 0.01
    again = Drafter.of(parts, model.config).parts()
    assert again.plain
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(again.arrays(), parts.arrays(), strict=True))


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_backends_draft_what_the_head_drafts(backend: str, source: Path, tmp_path: Path, seed: int) -> None:
    """Through the file: chains of the same tokens with the same chances, but for inputs rounded to 8 bits."""
    if backend == "cpu":
        pytest.importorskip("specee._cpu")
    eagle, output = made(tmp_path / "head", source, seed=seed), tmp_path / "made.safetensors"
    specee.import_eagle(specee.load(source, threads=1), tmp_path / "head", output)
    model = specee.load(source, weights="fp32", backend=backend, threads=1, speculator=output)
    assert model.heads.drafter is not None
    world, rng = World(source), np.random.default_rng(seed)
    other = made(tmp_path / "other", source, seed=seed + 1)
    right, wrong = Compared(), Compared()
    for _ in range(6):
        text = rng.integers(3, model.config.vocab_size, 9).tolist()
        state = model.backend.sequence(32)
        state.keep(model.heads.drafter.layers, 32)
        slots = list(state.append(text))
        model.backend.advance([(state, slots[:-1])], model.config.num_layers)
        call = ChainCall(state, model.heads.drafter.column(32, "fp32"), 4, 0.0, Sampling())
        (chain,) = model.backend.draft_chains(model.heads.drafter, [call], model.heads.drafter_head)
        right.see(chain, world.chain(eagle, text, 4))
        wrong.see(chain, world.chain(other, text, 4))
    print(right, wrong)
    assert right.agreed >= 0.7 * right.total
    assert np.mean(right.errors) < 0.08, "of chances that are anything from 0 to 1"
    assert wrong.agreed < 0.3 * wrong.total, "the control"
    assert np.mean(wrong.errors) > 0.1


def test_imported_heads_are_drafted_with_and_change_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made(tmp_path / "head", source)
    output = tmp_path / "made.safetensors"
    words = ["fit", "--model", str(source), "--output", str(output), "--import"]
    assert main([*words, str(tmp_path / "head")]) == 0
    assert "wrote" in capsys.readouterr().out
    assert main([*words, str(tmp_path / "nothing")]) == 2
    assert "config.json" in capsys.readouterr().err
    plain, with_it = specee.load(source, threads=1), specee.load(source, threads=1, speculator=output)
    found = read_speculator(output, plain.config, fingerprint(plain.config, plain.checkpoint.norms()))
    assert found.drafter is not None
    assert found.drafter.plain
    prompt = plain.encode("The quick brown fox")
    for options in ({}, {"do_sample": True, "seed": 3}):
        wanted = plain.generate(prompt, max_new_tokens=24, return_dict=True, **options).tokens
        for policy in ("drafter:threshold=0.0", "drafter-tree:measured=false", "auto"):
            result = with_it.generate(prompt, max_new_tokens=24, policy=policy, return_dict=True, **options)
            assert result.tokens == wanted
            assert policy == "auto" or result.statistics.acceptance.drafted > 5


OPTIONS = ("corpus", "base", "warm-start", "minutes", "memory", "plot", "work", "tokens", "epochs", "seed")


@pytest.mark.parametrize("option", [*OPTIONS, "snapshots", "generations"])
def test_an_import_takes_no_options_of_fits(
    option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "made.safetensors"
    words = ["fit", "--model", str(tmp_path / "none"), "--output", str(output), "--import", str(tmp_path)]
    value = "5.0" if option == "minutes" else "5"
    assert main([*words, f"--{option}", value]) == 2
    said = capsys.readouterr().err
    assert f"--{option} {value} with --import {tmp_path}" in said
    for alone in ("--warm-start", "--no-adapters"):
        assert main([*words, alone]) == 2
        assert f"{alone} with --import {tmp_path}" in capsys.readouterr().err
    assert main(words) == 2
    assert "with --import" not in capsys.readouterr().err, "the control: there is no such model"


def test_what_reads_a_block_is_fitted_to_a_head_too(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "head", source)
    model = specee.load(source, threads=1)
    head, output = tmp_path / "head.safetensors", tmp_path / "made.safetensors"
    specee.import_eagle(model, tmp_path / "head", head)
    plan = Plan(
        600,
        base=str(head),
        adapter_samples=0,
        exit_samples=200,
        exit_epochs=1,
        generations=3,
        generation_tokens=4,
    )
    report = fit(model, plan, output, tmp_path / "work")
    assert report.exits is not None
    assert report.vocabulary == model.config.vocab_size
    mark = fingerprint(model.config, model.checkpoint.norms())
    before, after = (read_speculator(path, model.config, mark) for path in (head, output))
    assert before.drafter is not None
    assert after.drafter is not None
    assert after.drafter.plain
    assert before.vocabulary is after.vocabulary is None, "all of it, without a copy of the model's head"
    assert np.array_equal(before.drafter.fc, after.drafter.fc)
    monkeypatch.setattr(limits, "_MOST_WORDS", 20)  # of a vocabulary that is chosen, which this is not
    chosen, whole = (
        Footprint(model.config, 3, plan.steps, words).most(LEAST) for words in (None, model.config.vocab_size)
    )
    assert chosen < whole
    with pytest.raises(ConfigurationError, match=f"takes {whole} bytes at least"):
        fit(model, replace(plan, memory=chosen), output, tmp_path / "work")
    with_it = specee.load(source, threads=1, speculator=output)
    prompt = model.encode("The quick brown fox")
    result = with_it.generate(prompt, max_new_tokens=16, policy="specee:threshold=0.0", return_dict=True)
    assert result.tokens == model.generate(prompt, max_new_tokens=16, return_dict=True).tokens


def change(folder: Path, edit: Callable[[dict[str, Tensor]], None]) -> None:
    """Other tensors in a folder's file."""
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    edit(tensors)
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def rename(old: str, new: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.update({new: tensors.pop(old)})


NORM, KEYS = "layers.0.input_layernorm.weight", "layers.0.self_attn.k_proj.weight"


@pytest.mark.parametrize(
    ("edit", "kind", "words"),
    [
        (lambda t: t.update({NORM: torch.ones(32)}), UnsupportedModelError, "input_layernorm"),
        (lambda t: t.update({"d2t": torch.ones(3)}), UnsupportedModelError, "d2t"),
        (rename("fc.weight", "midlayer.fc.weight"), UnsupportedModelError, "midlayer"),
        (lambda t: t.update({KEYS: torch.ones(16, 32).int()}), UnsupportedModelError, "I32"),
        (lambda t: t.pop("fc.bias"), CheckpointError, r"fc\.bias.*missing"),
        (lambda t: t.pop(KEYS), CheckpointError, "k_proj.*missing"),
        (lambda t: t.update({KEYS: torch.ones(32, 32)}), CheckpointError, r"k_proj.*\(32, 32\).*\(16, 32\)"),
        (lambda t: t[KEYS].fill_(math.nan), CheckpointError, "k_proj.*no numbers"),
        (lambda t: t[KEYS].fill_(1e6), CheckpointError, "k_proj.*65504"),
        (lambda t: t["embed_tokens.weight"].normal_(), CheckpointError, "embedding is not that"),
    ],
)
def test_other_heads_are_refused(
    edit: Callable[[dict[str, Tensor]], None],
    kind: type[SpeceeError],
    words: str,
    source: Path,
    tmp_path: Path,
) -> None:
    made(tmp_path, source)
    assert parts_of(tmp_path, source).fc_bias.any()
    change(tmp_path, edit)
    with pytest.raises(kind, match=words):
        parts_of(tmp_path, source)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_hidden_layers", 2, "2 layers"),
        ("num_attention_heads", 8, "num_heads is 8"),
        ("vocab_size", 301, "vocab_size is 301"),
        ("rope_theta", 500.0, "rope"),
        ("rms_norm_eps", 1e-2, "rms_norm_eps"),
        ("architectures", ["GPT2LMHeadModel"], "GPT2LMHeadModel"),
        ("hidden_size", None, "hidden_size"),
    ],
)
def test_other_shapes_are_refused(key: str, value: Any, words: str, source: Path, tmp_path: Path) -> None:
    made(tmp_path, source)
    config = json.loads((tmp_path / "config.json").read_text())
    config[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        parts_of(tmp_path, source)


class Trap:
    """What a pickled file could run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.path),)  # type: ignore[attr-defined]


def test_damaged_and_wicked_files(source: Path, tmp_path: Path) -> None:
    made(tmp_path, source, form="bin")
    path, trap = tmp_path / "pytorch_model.bin", Trap()
    whole = path.read_bytes()
    trap.path = str(tmp_path / "sprung")  # type: ignore[attr-defined]
    for content in (
        b"",
        whole[:-200],
        whole[: len(whole) // 2],
        pickle.dumps(trap, 2),
        pickle.dumps([1, 2], 2),
    ):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"pytorch_model\.bin"):
            parts_of(tmp_path, source)
    assert not (tmp_path / "sprung").exists()
    path.write_bytes(whole)
    parts_of(tmp_path, source)
    path.unlink()
    with pytest.raises(CheckpointError, match="neither"):
        parts_of(tmp_path, source)


def test_parts_that_a_plain_block_has_not(source: Path, tmp_path: Path) -> None:
    made(tmp_path, source)
    parts, config = parts_of(tmp_path, source), specee.load(source, threads=1).config
    assert parts.misfit(config) is None
    size = config.hidden_size
    assert "fuse" in str(replace(parts, fuse=np.ones((size, size), np.float32)).misfit(config))
    assert "fc_bias" in str(replace(parts, fc_bias=np.zeros(0, np.float32)).misfit(config))
    assert "one" in str(replace(parts, layers=(1, 3)).misfit(config))
    assert all(getattr(parts, name).size == 0 for name in FITTED)


def test_layerskip_checkpoints_are_models_as_others_are(tmp_path: Path) -> None:
    """They are Llama checkpoints, trained otherwise: nothing fitted is needed to draft at a layer."""
    source = tiny_folder("llama", tmp_path, seed=8)
    model = specee.load(source, threads=1)
    assert model.heads.adapted == ()
    prompt = model.encode("The quick brown fox")
    plain = model.generate(prompt, max_new_tokens=20, return_dict=True).tokens
    result = model.generate(prompt, max_new_tokens=20, policy="layerskip:exit_layer=1", return_dict=True)
    assert result.tokens == plain
    assert result.statistics.acceptance.drafted > 5
