"""The fused exit predictor."""

from __future__ import annotations

import pytest
import torch

from specee.bench.kernels import torch_references as reference
from specee.triton_kernels.predictor import Prediction, PredictorWeights, predict_exit
from tests.triton import bounds
from tests.triton.bounds import assert_within
from tests.triton.heads import EPS, Head, random_head
from tests.triton.shapes import drawn


def random_mlp(seed: int, device: str, count: int, inner: int) -> PredictorWeights:
    made = torch.Generator().manual_seed(seed + 1)
    shapes = [(inner, 3 * count), (inner,), (inner,), (1,)]
    return PredictorWeights(
        *((torch.randn(shape, generator=made) / shape[-1] ** 0.5).to(device) for shape in shapes)
    )


def random_probabilities(seed: int, device: str, rows: int, count: int) -> torch.Tensor:
    return torch.softmax(torch.randn(rows, count, generator=torch.Generator().manual_seed(seed)), -1).to(
        device
    )


def predict(
    case: Head, previous: torch.Tensor | None, mlp: PredictorWeights, limit: float = 0.5
) -> Prediction:
    return predict_exit(case.hidden, case.norm, case.head, case.ids, previous, mlp, eps=EPS, threshold=limit)


def chance_tolerance(case: Head, expected: reference.Predicted, mlp: PredictorWeights) -> torch.Tensor:
    """Errors of the features through the MLP: norms bound what its weights make of them; a sigmoid's slope is
    1/4."""
    logit_error = case.tolerance
    p_error = bounds.softmax(logit_error, expected.probabilities)
    feature_error = torch.cat([logit_error, p_error, p_error + bounds.UNIT], 1).norm(dim=1)
    features = torch.cat([expected.logits, expected.probabilities, expected.probabilities + 1], 1).norm(dim=1)
    w1, b1, w2, _ = (weight.double() for weight in mlp)
    rounding = bounds.LAMBDA * (len(w2) + w1.shape[1] + 8) ** 0.5 * bounds.UNIT
    inner = torch.linalg.matrix_norm(w1, 2) * (feature_error + rounding * features) + rounding * b1.norm()
    outer = w2.norm() * inner + rounding * w2.norm() * (w1.norm() * features + b1.norm())
    return outer / 4 + (bounds.EXP + 4) * bounds.UNIT


@pytest.mark.parametrize("checked_before", [False, True])
@pytest.mark.parametrize("shape", [(1, 576, 4, 512), (7, 100, 3, 48), (2, 64, 16, 512), None])
def test_against_the_reference(
    device: str,
    seed: int,
    dtype: torch.dtype,
    checked_before: bool,
    shape: tuple[int, int, int, int] | None,
) -> None:
    rows, size, count, inner = shape or drawn(seed, (1, 9), (1, 700), (1, 16), (1, 600))
    case = random_head(seed, device, dtype, rows=rows, size=size, count=count, own=True)
    mlp = random_mlp(seed, device, count, inner)
    previous = random_probabilities(seed, device, rows, count) if checked_before else None
    result = predict(case, previous, mlp)
    expected = reference.exit_chance(case.expected, previous, mlp)
    assert_within(result.logits, expected.logits, case.tolerance)
    assert_within(
        result.probabilities, expected.probabilities, bounds.softmax(case.tolerance, expected.probabilities)
    )
    tolerance = chance_tolerance(case, expected, mlp)
    assert_within(result.exit_probability, expected.chance, tolerance)
    assert torch.equal(result.leave, result.exit_probability > 0.5)
    other = torch.full((rows, count), 100.0, device=device)
    with pytest.raises(AssertionError, match="rounding"):  # what came before has a part in it
        assert_within(predict(case, other, mlp).exit_probability, expected.chance, tolerance)


def test_a_row_alone_has_the_bits_of_a_row_among_others(device: str, seed: int) -> None:
    case = random_head(seed, device, torch.float16, rows=6, size=192, count=4, own=True)
    mlp, previous = random_mlp(seed, device, 4, 512), random_probabilities(seed, device, 6, 4)
    together = predict(case, previous, mlp)
    for row in range(6):
        one = slice(row, row + 1)
        alone = predict(case._replace(hidden=case.hidden[one], ids=case.ids[one]), previous[one], mlp)
        for mine, theirs in zip(alone, together, strict=True):
            assert torch.equal(mine[0], theirs[row])


def test_the_threshold_decides_and_a_nan_stays(device: str, seed: int) -> None:
    case = random_head(seed, device, torch.float32, rows=3, size=64, count=4, own=True)
    mlp = random_mlp(seed, device, 4, 32)
    assert predict(case, None, mlp, 0.0).leave.all()
    assert not predict(case, None, mlp, 1.0).leave.any()
    case.hidden[1, 5] = torch.nan
    result = predict(case, None, mlp, 0.0)
    assert result.leave.tolist() == [True, False, True]
    assert result.exit_probability.isnan().tolist() == [False, True, False]
