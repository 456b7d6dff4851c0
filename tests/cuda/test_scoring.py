"""Candidate scoring and the exit predictor against the same formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest

from specee.cuda import scoring
from specee.cuda.chances import exit_chances
from specee.errors import ConfigurationError
from tests.cuda.devices import Device
from tests.cuda.numbers import UNIT, from_bf16, to_bf16

EPS = 1e-5


class Problem:
    """A head and some states, in numpy and on the device."""

    def __init__(self, rng: np.random.Generator, device: Device, rows: int, vocab: int, hidden: int) -> None:
        self.device = device
        self.norm = rng.uniform(0.5, 1.5, hidden).astype(np.float32)
        self.weights = to_bf16(rng.standard_normal((vocab, hidden)) / np.sqrt(hidden))
        self.states = (3 * rng.standard_normal((rows, hidden))).astype(np.float32)
        self.head = scoring.Head(device.put(self.norm), device.put(self.weights), EPS)

    def on_device(self, rows: np.ndarray | None = None) -> scoring.States:
        put = self.device.put
        return scoring.States(put(self.states), None if rows is None else put(rows.astype(np.int32)))

    def logits(self, row: int, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact logits, and how far the kernel's may be from them."""
        h = self.states[row].astype(np.float64)
        normed = h / np.sqrt(np.mean(h * h) + EPS) * self.norm
        w = from_bf16(self.weights[tokens]).astype(np.float64)
        hidden = len(h)
        # Rounding to bf16 once (2^-8 of each term), the norm (a sum of squares), and a sum of `hidden` terms.
        relative = 2.0**-8 + (hidden / 512 + 40) * UNIT + (hidden / 128 + 16) * UNIT
        return w @ normed, relative * (np.abs(w) @ np.abs(normed))

    def score(self, tokens: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
        out = self.device.put(np.full(tokens.shape, np.nan, np.float32))
        tokens_there = self.device.put(tokens.astype(np.int32))
        scoring.score_candidates(self.device.launcher, self.head, self.on_device(rows), tokens_there, out)
        return self.device.get(out)


@pytest.mark.parametrize(("count", "hidden"), [(1, 8), (4, 576), (7, 1032), (16, 2048), (37, 64)])
def test_candidates_against_the_formula(
    device: Device, rng: np.random.Generator, count: int, hidden: int
) -> None:
    problem = Problem(rng, device, rows=5, vocab=50, hidden=hidden)
    rows = rng.permutation(5)[:3]
    tokens = rng.integers(0, 50, (3, count))
    logits = problem.score(tokens, rows)
    for i, row in enumerate(rows):
        exact, bound = problem.logits(row, tokens[i])
        assert np.all(np.abs(logits[i] - exact) <= bound)


def test_the_wrong_token_is_noticed(device: Device, rng: np.random.Generator) -> None:
    """The negative control."""
    problem = Problem(rng, device, rows=1, vocab=9, hidden=512)
    logits = problem.score(np.arange(9)[None])
    exact, bound = problem.logits(0, np.roll(np.arange(9), 1))
    assert np.any(np.abs(logits[0] - exact) > bound)


def test_a_logit_does_not_depend_on_its_company(device: Device, rng: np.random.Generator) -> None:
    """To the bit: other candidates, their number, other rows, the grouped kernel."""
    problem = Problem(rng, device, rows=4, vocab=30, hidden=616)
    problem.states[2] = np.nan
    tokens = rng.permutation(30)[:20]
    together = problem.score(np.tile(tokens, (4, 1)))
    assert np.isnan(together[2]).all()
    for row in (0, 1, 3):
        alone = np.concatenate([problem.score(tokens[None, i : i + 1], np.array([row])) for i in (0, 5, 19)])
        np.testing.assert_array_equal(alone[:, 0], together[row, [0, 5, 19]])
    groups = [tokens[:3], tokens[3:3], tokens[3:20], tokens[1:2]]
    rows = np.array([3, 0, 1, 0])
    offsets = np.cumsum([0, *(len(group) for group in groups)]).astype(np.int32)
    put = device.put
    logits = put(np.full(offsets[-1], np.nan, np.float32))
    scoring.score_grouped(
        device.launcher,
        problem.head,
        problem.on_device(rows),
        put(np.concatenate(groups).astype(np.int32)),
        put(offsets),
        logits,
    )
    expected = [together[3, :3], together[1, 3:20], together[0, 1:2]]
    np.testing.assert_array_equal(device.get(logits), np.concatenate(expected))


def test_tokens_beyond_the_vocabulary_score_nothing(device: Device, rng: np.random.Generator) -> None:
    problem = Problem(rng, device, rows=1, vocab=10, hidden=64)
    logits = problem.score(np.array([[-1, 3, 10, 2**31 - 1]]))
    assert list(np.isneginf(logits[0])) == [True, False, True, True]


class Predictor:
    """Random weights of a predictor for ``count`` candidates."""

    def __init__(self, rng: np.random.Generator, device: Device, count: int, units: int) -> None:
        shapes = [(3 * count, units), (units,), (units,), (1,)]
        self.count = count
        self.arrays = [rng.standard_normal(shape).astype(np.float32) / 4 for shape in shapes]
        self.mlp = scoring.Mlp(*map(device.put, self.arrays))

    def confidence(self, logits: np.ndarray, before: np.ndarray | None) -> tuple[np.ndarray, float, float]:
        """Probabilities, confidence and its bound, of the kernel's own logits in float64."""
        up, up_bias, down, down_bias = (array.astype(np.float64) for array in self.arrays)
        weights = np.exp(logits - logits.max())
        probabilities = weights / weights.sum()
        change = probabilities - (0 if before is None else before)
        features = np.concatenate([logits, probabilities, change])
        hidden = up_bias + features @ up
        raw = np.maximum(hidden, 0) @ down + down_bias[0]
        # A probability is within 16 + spread of logits units; the MLP adds 3k + units / 16 + 32 roundings.
        units = 48 + np.ptp(logits) + 3 * self.count + len(down) / 16 + 32
        size = (np.abs(up_bias) + np.abs(features) @ np.abs(up)) @ np.abs(down)
        weight = 2 * (np.abs(up) @ np.abs(down)).max() * len(logits)
        bound = units * UNIT * (size + weight + abs(down_bias[0]))
        return probabilities, 1 / (1 + np.exp(-raw)), bound / 4 + 4 * UNIT  # a sigmoid is at most 1/4 steep


def predict(
    device: Device, problem: Problem, predictor: Predictor, tokens: np.ndarray, before: np.ndarray | None
) -> list[np.ndarray]:
    rows, count = tokens.shape
    put = device.put
    out = scoring.Prediction(
        put(np.full((rows, count), np.nan, np.float32)),
        put(np.full((rows, count), np.nan, np.float32) if before is None else before),
        put(np.full(rows, np.nan, np.float32)),
        put(np.full(rows, -7, np.int32)),
    )
    scoring.exit_predictor(
        device.launcher,
        problem.head,
        predictor.mlp,
        problem.on_device(),
        put(tokens.astype(np.int32)),
        out,
        before=None if before is None else out.probabilities,  # in place, as from layer to layer
        threshold=0.5,
    )
    return [device.get(a) for a in (out.logits, out.probabilities, out.confidences, out.decisions)]


@pytest.mark.parametrize(("count", "units"), [(1, 32), (4, 512), (5, 100), (16, 600)])
def test_chances_are_what_the_predictor_makes_of_the_same_logits(
    device: Device, rng: np.random.Generator, count: int, units: int
) -> None:
    """To the bit, layer after layer; rows that nobody asks about are left as they are."""
    rows, put = 4, device.put
    problem = Problem(rng, device, rows=rows, vocab=60, hidden=64)
    predictor = Predictor(rng, device, count, units)
    tokens = np.stack([rng.permutation(60)[:count] for _ in range(rows)])
    before = np.zeros((rows, count), np.float32)
    probabilities = put(before)
    for asked in (None, np.array([1, 0, 7, 1], np.int32)):
        logits, now, confidences, _ = predict(device, problem, predictor, tokens, before)
        chances = put(np.full(rows, -7, np.float32))
        on = None if asked is None else put(asked)
        exit_chances(device.launcher, predictor.mlp, put(logits), probabilities, chances, asked=on)
        there = np.ones(rows, bool) if asked is None else asked != 0
        assert np.array_equal(device.get(probabilities), np.where(there[:, None], now, before))
        assert np.array_equal(device.get(chances), np.where(there, confidences, np.float32(-7)))
        assert len(set(confidences.tolist())) == rows
        before, problem.states = now, problem.states[::-1].copy()


def test_no_chance_without_numbers(device: Device, rng: np.random.Generator) -> None:
    predictor = Predictor(rng, device, 3, 64)
    logits = np.array([[1, 2, 3], [1, np.nan, 3], [np.inf, 1, 1], [1, -np.inf, 1]], np.float32)
    chances = device.put(np.zeros(4, np.float32))
    zeros = device.put(np.zeros((4, 3), np.float32))
    exit_chances(device.launcher, predictor.mlp, device.put(logits), zeros, chances)
    assert np.isnan(device.get(chances)).tolist() == [False, True, True, True]
    many = device.put(np.zeros((4, 17), np.float32))
    with pytest.raises(ConfigurationError, match=r"17 candidates a row: allowed are 1\.\.16"):
        exit_chances(device.launcher, predictor.mlp, many, many, chances)
    with pytest.raises(ConfigurationError, match="asked is"):
        exit_chances(device.launcher, predictor.mlp, zeros, zeros, chances, asked=chances)


@pytest.mark.parametrize(("count", "units"), [(1, 32), (4, 512), (5, 100), (16, 600)])
def test_the_predictor_against_the_formula(
    device: Device, rng: np.random.Generator, count: int, units: int
) -> None:
    rows = 4
    problem = Problem(rng, device, rows=rows, vocab=60, hidden=520)
    predictor = Predictor(rng, device, count, units)
    tokens = rng.integers(0, 60, (rows, count))
    before = rng.dirichlet(np.ones(count), rows).astype(np.float32)
    for earlier in (None, before):
        logits, probabilities, confidences, decisions = predict(device, problem, predictor, tokens, earlier)
        np.testing.assert_array_equal(logits, problem.score(tokens))
        for row in range(rows):
            own = None if earlier is None else earlier[row].astype(np.float64)
            p, confidence, bound = predictor.confidence(logits[row].astype(np.float64), own)
            assert np.all(np.abs(probabilities[row] - p) <= (32 + np.ptp(logits[row])) * UNIT)
            assert abs(confidences[row] - confidence) <= bound
        np.testing.assert_array_equal(decisions, confidences >= 0.5)


def test_a_prediction_does_not_depend_on_its_company(device: Device, rng: np.random.Generator) -> None:
    problem = Problem(rng, device, rows=6, vocab=20, hidden=256)
    predictor = Predictor(rng, device, count=4, units=512)
    tokens = rng.integers(0, 20, (6, 4))
    together = predict(device, problem, predictor, tokens, None)
    all_states = problem.states
    for row in (0, 3, 5):
        problem.states = all_states[row : row + 1]
        for whole, part in zip(
            together, predict(device, problem, predictor, tokens[[row]], None), strict=True
        ):
            np.testing.assert_array_equal(part[0], whole[row])


def test_a_change_of_features_changes_the_confidence(device: Device, rng: np.random.Generator) -> None:
    """The negative control: without the probabilities of the layer before, the prediction is another one."""
    rows = 12  # of which some are sure either way
    problem = Problem(rng, device, rows=rows, vocab=20, hidden=256)
    predictor = Predictor(rng, device, count=4, units=512)
    tokens = rng.integers(0, 20, (rows, 4))
    before = np.full((rows, 4), 0.25, np.float32)
    logits, _, confidences, _ = predict(device, problem, predictor, tokens, before)
    told = 0
    for row in range(rows):
        _, wrong, bound = predictor.confidence(logits[row].astype(np.float64), None)
        told += bool(abs(confidences[row] - wrong) > bound)
    assert told > 0


def test_unsound_rows_go_on(device: Device, rng: np.random.Generator) -> None:
    problem = Problem(rng, device, rows=3, vocab=20, hidden=64)
    problem.states[1] = np.nan
    predictor = Predictor(rng, device, count=4, units=64)
    tokens = rng.integers(0, 20, (3, 4))
    tokens[2, 1] = 20
    _, _, confidences, decisions = predict(device, problem, predictor, tokens, None)
    assert list(np.isnan(confidences)) == [False, True, True]
    assert list(decisions[1:]) == [0, 0]


def test_impossible_shapes_are_refused(device: Device, rng: np.random.Generator) -> None:
    problem = Problem(rng, device, rows=2, vocab=20, hidden=64)
    with pytest.raises(ConfigurationError, match=r"17 candidates a row: allowed are 1\.\.16"):
        predict(device, problem, Predictor(rng, device, 17, 8), np.zeros((2, 17), np.int64), None)
    with pytest.raises(ConfigurationError, match="states of 2 rows: tokens have 3"):
        problem.score(np.zeros((3, 1), np.int64))
    with pytest.raises(ConfigurationError, match="multiples of 8 up to 16384"):
        Problem(rng, device, rows=1, vocab=4, hidden=12).score(np.zeros((1, 1), np.int64))
