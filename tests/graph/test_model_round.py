"""Decode rounds of whole models by the CUDA backend: one launch each, and the tokens of its steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.cuda_round import CudaRound, ModelRound, Shape  # noqa: E402
from specee.cuda.graph import Means  # noqa: E402
from specee.cuda.record import SequencePlan  # noqa: E402
from specee.errors import CapacityError, ConfigurationError  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.fake_driver import FakeDriver  # noqa: E402
from tests.graph.place import Place, emulated  # noqa: E402
from tests.random_model import SHAPES, random_model  # noqa: E402

CAPACITY = 64


class Setting:
    """A random model, and texts that it goes on with."""

    def __init__(self, place: Place, rng: np.random.Generator, shape: str, weights: Any = "bf16") -> None:
        self.config, self.place = SHAPES[shape], place
        model = random_model(self.config, seed=int(rng.integers(2**31)), kind=weights)
        self.backend = CudaBackend(
            self.config, model.slabs(), weights, device=place.device, launcher=place.launcher
        )
        self.texts = [rng.integers(0, self.config.vocab_size, n).tolist() for n in (5, 3)]

    def prefilled(self) -> list[Any]:
        """Sequences that have all of their text but its last token."""
        found = []
        for text in self.texts:
            sequence = self.backend.sequence(CAPACITY)
            self.backend.advance([(sequence, sequence.append(text[:-1]))], self.config.num_layers)
            found.append(sequence)
        return found

    def stepwise(self, count: int, samplings: list[Sampling]) -> list[list[int]]:
        """What plain decoding says, a pass a token."""
        sequences, tokens = self.prefilled(), [text[-1:] for text in self.texts]
        for _ in range(count):
            work = [(one, one.append(said[-1:])) for one, said in zip(sequences, tokens, strict=True)]
            self.backend.advance(work, self.config.num_layers)
            drawn = self.backend.sample(work, samplings)
            for said, token in zip(tokens, drawn, strict=True):
                said.append(int(token))
        return [said[1:] for said in tokens]

    def round(self, shape: Shape, sequences: list[Any]) -> tuple[ModelRound, CudaRound]:
        model = (self.config, self.backend._table, self.backend._layers)
        parts = ModelRound(*model, sequences, shape, torch.device(self.place.device))
        launcher = self.place.launcher
        return parts, CudaRound(parts, Means(launcher, launcher.function, self.place.library))

    def rounds(
        self, shape: Shape, count: int, samplings: list[Sampling], how: str = "graph"
    ) -> tuple[list[list[int]], int]:
        """As many tokens by rounds, and how many rounds it took."""
        _, one = self.round(shape, self.prefilled())
        assert one.how == how
        texts, taken = [list(text) for text in self.texts], 0
        goals = [len(text) + count for text in texts]
        while any(len(text) < goal for text, goal in zip(texts, goals, strict=True)):
            plans = [
                SequencePlan(
                    text[-1],
                    len(text) - 1,
                    drafts=shape.drafts,
                    temperature=sampling.temperature,
                    seed=sampling.seed,
                )
                for text, sampling in zip(texts, samplings, strict=True)
            ]
            layers, outcomes = one.run(range(self.config.num_layers), plans)
            assert layers == self.config.num_layers
            for text, outcome in zip(texts, outcomes, strict=True):
                assert outcome.drafted == shape.drafts
                text.extend(outcome.tokens)
            taken += 1
        said = [text[len(own) :][:count] for text, own in zip(texts, self.texts, strict=True)]
        return said, taken


@pytest.mark.parametrize(
    ("shape", "weights"),
    [("tiles", "bf16"), ("tiles-window", "bf16"), ("tiles-biases", "int8"), ("tiles-qk-norm", "int4")],
)
def test_rounds_say_what_steps_say(place: Place, rng: np.random.Generator, shape: str, weights: str) -> None:
    setting = Setting(place, rng, shape, weights)
    samplings = [Sampling(), Sampling(temperature=0.8, seed=int(rng.integers(2**31)))]
    expected = setting.stepwise(6, samplings)
    assert setting.rounds(Shape(), 6, samplings) == (expected, 6)


def test_emulated_rounds_are_one_launch(fake: FakeDriver, rng: np.random.Generator) -> None:
    setting = Setting(emulated(fake), rng, "tiles-short")
    _, one = setting.round(Shape(), setting.prefilled())
    before = len(fake.log())
    one.run(range(2), [SequencePlan(text[-1], len(text) - 1) for text in setting.texts])
    assert fake.called(before) == [
        "cuMemcpyHtoDAsync_v2",
        "cuGraphLaunch",
        "cuMemcpyDtoHAsync_v2",
        "cuStreamSynchronize",
    ]


def test_emulated_rounds_of_old_drivers_are_launched(old_library: Path, rng: np.random.Generator) -> None:
    """The same program kernel by kernel, conditions and loops included."""
    fake = FakeDriver(old_library)
    setting = Setting(emulated(fake), rng, "tiles-short")
    samplings = [Sampling(), Sampling(temperature=0.5, seed=3)]
    expected = setting.stepwise(4, samplings)
    said, _ = setting.rounds(Shape(drafts=2, draft_layer=1), 4, samplings, "launches")
    assert said == expected
    assert not [line for line in fake.log() if line.startswith("cuGraph")]


def test_drafts_change_nothing(place: Place, rng: np.random.Generator) -> None:
    setting = Setting(place, rng, "tiles")
    samplings = [Sampling(), Sampling(temperature=0.3, seed=int(rng.integers(2**31)))]
    expected = setting.stepwise(9, samplings)
    said, taken = setting.rounds(Shape(drafts=3, draft_layer=1), 9, samplings)
    assert said == expected
    assert taken <= 9


def test_drafts_that_are_right_stay(place: Place, rng: np.random.Generator) -> None:
    """With a last layer that adds nothing, what the others draft is what all of them say."""
    setting = Setting(place, rng, "tiles")
    last = setting.config.num_layers - 1
    for role in ("o", "down"):
        setting.backend._table.matrix(role, last).zero_()
    samplings = [Sampling(), Sampling()]
    expected = setting.stepwise(12, samplings)
    assert setting.rounds(Shape(drafts=3, draft_layer=last), 12, samplings) == (expected, 3)


def test_emulated_rounds_refuse_what_does_not_fit(fake: FakeDriver, rng: np.random.Generator) -> None:
    setting = Setting(emulated(fake), rng, "tiles-short")
    sequences = setting.prefilled()
    for shape, why in (
        (Shape(drafts=1), "1 drafts after None layers"),
        (Shape(draft_layer=1), "0 drafts after 1 layers"),
        (Shape(drafts=2, draft_layer=2), r"2 drafts after 2 layers: allowed are 1..1"),
        (Shape(drafts=18, draft_layer=1), "2 sequences with 18 drafts each"),
        (Shape(drafts=1, draft_layer=1, given=True), "1 drafts after 1 layers and given: allowed are"),
        (Shape(given=True), "0 drafts after None layers and given: allowed are"),
        (Shape(drafts=1, by_block=True), r"given: \(False, False\), and the shape has them: \(True, False\)"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            setting.round(shape, sequences)
    with pytest.raises(ConfigurationError, match="40 sequences with 0 drafts"):
        setting.round(Shape(), sequences * 20)
    _, one = setting.round(Shape(drafts=2, draft_layer=1), sequences)
    last = SequencePlan(1, CAPACITY - 3)
    with pytest.raises(ConfigurationError, match="1 plans for 2 sequences: give one for each"):
        one.run([0], [last])
    with pytest.raises(CapacityError, match=r"3 rows from position 62 on, in a sequence of 64: .* up to 61"):
        one.run([0], [last, SequencePlan(1, CAPACITY - 2)])
    with pytest.raises(ConfigurationError, match="drafts of 2 sequences, 1 at most, for a round of 2"):
        one.run([0], [last, last], given=[[1], []])
    one.run([0], [last, last])
    _, one = setting.round(Shape(drafts=2, given=True), sequences)
    for drafts, why in (
        ([], "drafts of 0 sequences, 0 at most"),
        ([[1], [1, 2, 3]], "3 at most, for a round of 2"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            one.run([0], [last, last], given=drafts)
    _, outcomes = one.run([0], [last, last], given=[[1], [5, 6]])
    assert [outcome.drafts for outcome in outcomes] == [(1,), (5, 6)]
