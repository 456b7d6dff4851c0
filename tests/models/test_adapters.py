"""Adapters of exit layers: what they compute, what they learn, and which of them is kept."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import specee
from specee.fitting import adapter_report, adapter_training, adapters
from specee.fitting.adapter_judging import AdapterJudge
from specee.fitting.adapter_report import Head, choose, speed
from specee.fitting.adapter_samples import Positions, order_of, positions_of
from specee.fitting.adapter_training import AdapterTraining, ExitAdapter
from specee.fitting.adapters import exit_layers, widths_of
from specee.fitting.corpus import Text
from specee.fitting.frozen import Frozen, read_frozen
from specee.fitting.pipeline import fit
from specee.fitting.plan import Plan
from specee.models.speculator import fingerprint, read_speculator
from specee.policies import Latency
from specee.policies.objective import Objective
from specee.types import Sampling
from tests.tiny_models import tiny_folder

LAYERS = (1, 2)
FREE = Latency((1, 4, 16), (1e-6,) * 3, (1e-6,) * 3, step=1.0)
"""Steps alone take time: whatever is accepted is a gain."""
DEAR = Latency((1, 4, 16), (1.0, 4.0, 16.0), (1.0, 4.0, 16.0))
"""A row takes as long whatever it shares a pass with: nothing can gain."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("tiny"), seed=3)


@pytest.fixture(scope="module")
def model(folder: Path) -> specee.Model:
    return specee.load(folder, threads=1)


@pytest.fixture(scope="module")
def frozen(model: specee.Model) -> Frozen:
    return read_frozen(model.checkpoint, model.backend.weights)


@pytest.fixture
def seed() -> int:
    seed = random.randrange(2**32)
    print("seed", seed)
    torch.manual_seed(seed)
    return seed


def texts_of(model: specee.Model, seed: int, count: int) -> list[Text]:
    rng = np.random.default_rng(seed)
    tokens = [rng.integers(0, model.config.vocab_size, rng.integers(5, 30)) for _ in range(count)]
    return [Text(one.astype(np.int32), int(rng.integers(0, 4))) for one in tokens]


def trained(frozen: Frozen, vocabulary: torch.Tensor, widths: tuple[int, ...], steps: int) -> AdapterTraining:
    return AdapterTraining(frozen, vocabulary, LAYERS, widths, steps, "a test")


def test_it_begins_as_nothing_and_is_what_a_file_says(frozen: Frozen, seed: int) -> None:
    adapter = ExitAdapter(frozen.config, 7)
    states = 5 * torch.randn(9, frozen.config.hidden_size)
    adapter.scale.fill_(3.0)
    assert torch.equal(adapter(states), states)
    with torch.no_grad():
        adapter.up.weight.normal_()
        adapter.norm.weight.uniform_(0.5, 1.5)
    part, x = adapter.part(), states.numpy().astype(np.float64)
    normed = x / np.sqrt((x**2).mean(-1, keepdims=True) + frozen.config.norm_eps) * part.norm
    inner = normed @ part.down.T
    wanted = x + (inner / (1 + np.exp(-inner))) @ part.up.T
    assert not np.allclose(wanted, x, atol=0.5)
    assert np.allclose(adapter(states).detach().numpy(), wanted, rtol=1e-4, atol=1e-3)


def test_what_can_be_learnt_is_learnt(frozen: Frozen, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last state is the exit's with some signs turned: a wide adapter learns it, none learns noise."""
    hidden, count = frozen.config.hidden_size, 512
    turn = torch.ones(hidden)
    turn[: hidden // 4] = -1
    vocabulary = torch.arange(0, frozen.config.vocab_size, 2)
    training = trained(frozen, vocabulary, (2, 64), 80)
    monkeypatch.setattr(adapter_training, "_RATE", 2e-2)  # for a few steps of few parameters

    def positions() -> Positions:
        states = 20 * torch.randn(count, 2, hidden)
        return Positions(states, states[:, 0] * turn)  # and nothing that the second layer could know

    judge = AdapterJudge(None, frozen, vocabulary)  # type: ignore[arg-type]
    before = judge._hits(training, positions()) / count
    for _ in range(training.batches):
        training.step(positions())
    after = judge._hits(training, positions()) / count
    print(before, after)
    assert torch.equal(before[:, 1:2].expand(2, 3), before[:, 1:]), "adapters begin as the trimmed head"
    assert after[0, 3] > before[0, 3] + 0.15, "the wide one of the first layer"
    assert after[0, 3] > after[0, 2], "the narrow one has less room"
    assert after[1, 2:].max() < 0.1, "the control"


def test_positions_are_those_that_say_what_the_model_wrote(model: specee.Model, seed: int) -> None:
    texts = texts_of(model, seed, 3)
    found = positions_of(model.backend, texts, LAYERS)
    at = 0
    for text in texts:
        first, size = max(text.begin, 1), len(text.tokens)
        state = model.backend.sequence(size)
        slots = list(state.append(text.tokens.tolist()))[first - 1 : -1]
        for index, layer in enumerate((*LAYERS, model.config.num_layers)):
            model.backend.advance([(state, slots)], layer)
            own = model.backend.hidden([(state, slots)])
            of = found.states[:, index] if index < len(LAYERS) else found.last
            assert np.allclose(of[at : at + len(slots)], own, rtol=2e-3, atol=1e-3)  # kept as fp16
        at += size - first
    assert at == len(found.last)
    assert order_of(texts, 10**9, 64, 2, 0) != order_of(texts, 1, 64, 2, 0)
    assert len(order_of(texts, 1, 64, 2, 0)) == 1


def test_agreement_is_what_the_engine_drafts(model: specee.Model, frozen: Frozen, seed: int) -> None:
    """The share of tokens of its own draft heads that are those of plain decoding."""
    texts = texts_of(model, seed, 30)
    ids = np.arange(0, model.config.vocab_size, 3)
    training = trained(frozen, torch.from_numpy(ids), (16,), 10)
    for _ in range(10):
        training.step(positions_of(model.backend, texts, LAYERS))
    judge = AdapterJudge(model.backend, frozen, torch.from_numpy(ids))
    found = judge.agreement(training, LAYERS, texts, 10**9, lambda *_: None)
    for layer, (adapter,), rates in zip(LAYERS, training.by_layer(), found, strict=True):
        heads = (None, model.backend.draft_head(None, ids), model.backend.draft_head(adapter.part(), ids))
        right, total = np.zeros(3), 0
        for text in texts:
            state = model.backend.sequence(len(text.tokens))
            slots = list(state.append(text.tokens.tolist()))[max(text.begin - 1, 0) : -1]
            work, options = [(state, slots)], [Sampling()] * len(slots)
            model.backend.advance(work, layer)
            drafted = [model.backend.draft(work, options, head)[0] for head in heads]
            model.backend.advance(work, model.config.num_layers)
            wanted = model.backend.argmax(work)
            right += [(each == wanted).sum() for each in drafted]
            total += len(slots)
        assert np.abs(right / total - rates).max() <= 0.025, "but for ties of bf16"


def test_speed_is_tokens_over_seconds() -> None:
    objective = Objective(Latency((1, 2, 20), (2.0, 2.5, 5.0), (3.0, 3.5, 7.0), 0.1, 0.5), 4)
    tokens = [sum(0.6**n for n in range(drafts + 1)) for drafts in range(1, 18)]
    seconds = [objective.seconds(1, 0.5, drafts) for drafts in range(1, 18)]
    plain = 4 * 2.0 + 3.0 + 0.5 + 0.1
    wanted = max(made / taken for made, taken in zip(tokens, seconds, strict=True)) * plain
    assert speed(objective, 1, 0.5, 0.6) == pytest.approx(wanted)
    assert speed(objective, 1, 0.5, 0.6) > speed(objective, 1, 0.9, 0.6) > speed(objective, 2, 0.9, 0.6)


@pytest.mark.parametrize(
    ("own", "trimmed", "adapted", "kept"),
    [
        (0.9, 0.95, {16: 1.1, 64: 1.3}, 64),
        (0.9, 0.95, {16: 1.298, 64: 1.3}, 16),  # nearly as good, and smaller
        (0.9, 0.95, {16: 0.97, 64: 0.99}, None),  # slower than plain decoding
        (1.3, 0.95, {16: 1.2, 64: 1.305}, None),  # the model's own head does as well
        (0.9, 1.3, {16: 1.2, 64: 1.305}, None),
        (0.9, 1.3, {16: 1.32, 64: 1.2}, 16),
    ],
)
def test_the_narrowest_that_pays_is_kept(
    own: float, trimmed: float, adapted: dict[int, float], kept: int | None
) -> None:
    heads = {width: Head(0.5, value) for width, value in adapted.items()}
    assert choose(3, Head(0.5, own), Head(0.5, trimmed), heads).kept == kept


def test_a_handful_of_layers_and_widths() -> None:
    assert exit_layers(30) == (3, 6, 12, 18, 24)
    assert exit_layers(1) == ()
    for depth in range(2, 90):
        layers = exit_layers(depth)
        assert 1 <= layers[0] <= layers[-1] < depth
        assert len(layers) <= 5
        assert min(depth - 1, max(1, round(0.8 * depth))) in layers, "where layerskip drafts by default"
    assert widths_of(576) == (48, 144, 576)
    assert all(width % 16 == 0 for hidden in (8, 40, 2048) for width in widths_of(hidden))


@pytest.mark.parametrize("latency", [FREE, DEAR])
def test_policies_draft_with_what_is_kept(
    latency: Latency, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where only steps take time some pay, and the file's drafts change no token; else there is none."""
    model = specee.load(folder, threads=1)
    monkeypatch.setattr(type(model.latency), "table", lambda _: latency)
    monkeypatch.setattr(adapter_report, "_GAIN", 1.0 if latency is FREE else 1.01)
    monkeypatch.setattr(adapters, "_SAVE_EVERY", 4)
    output = tmp_path / "made.safetensors"
    size = 6 if latency is FREE else 1
    plan = Plan(tokens=1000 * size, batch_tokens=512, exit_samples=0, adapter_samples=1600 * size)
    report = fit(model, plan, output, tmp_path / "work")
    kept = [one.layer for one in report.adapters if one.kept is not None]
    assert [one.layer for one in report.adapters] == [1, 2]
    found = read_speculator(output, model.config, fingerprint(model.config, model.checkpoint.norms()))
    assert sorted(found.adapters) == kept
    assert bool(kept) is (latency is FREE)
    monkeypatch.undo()
    with_it = specee.load(folder, threads=1, speculator=output)
    assert with_it.heads.view.fitted == tuple(kept)
    prompt = with_it.encode("The quick brown fox")
    plain = model.generate(prompt, max_new_tokens=24, return_dict=True).tokens
    for policy in ("auto", "del:adapted=true", *(f"layerskip:exit_layer={at},adapted=true" for at in kept)):
        result = with_it.generate(prompt, max_new_tokens=24, policy=policy, return_dict=True)
        assert result.tokens == plain
        if policy.startswith("layerskip"):
            assert result.statistics.acceptance.drafted > 5
