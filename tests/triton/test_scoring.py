"""Merged and grouped candidate scoring."""

from __future__ import annotations

import pytest
import torch

from specee.errors import KernelArgumentError
from specee.triton_kernels.grouped import score_nodes
from specee.triton_kernels.scoring import score_candidates
from tests.triton.bounds import assert_within
from tests.triton.heads import EPS, Head, random_head
from tests.triton.shapes import drawn

SHAPES = [(1, 64, 1), (3, 200, 4), (17, 576, 5), (2, 1500, 16), (64, 96, 3), None]


def scored(case: Head) -> torch.Tensor:
    score = score_candidates if case.ids.dim() == 1 else score_nodes
    return score(case.hidden, case.norm, case.head, case.ids, eps=EPS)


@pytest.mark.parametrize("own", [False, True], ids=["merged", "grouped"])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_the_reference(
    device: str, seed: int, dtype: torch.dtype, own: bool, shape: tuple[int, int, int] | None
) -> None:
    rows, size, count = shape or drawn(seed, (1, 20), (1, 1300), (1, 16))
    case = random_head(seed, device, dtype, rows=rows, size=size, count=count, own=own)
    result = scored(case)
    assert result.dtype == torch.float32
    assert_within(result, case.expected, case.tolerance)
    worse = case._replace(norm=case.norm * 1.01)  # the test must notice a wrong factor
    with pytest.raises(AssertionError, match="rounding"):
        assert_within(scored(worse), case.expected, case.tolerance)


@pytest.mark.parametrize("own", [False, True], ids=["merged", "grouped"])
def test_a_row_alone_has_the_bits_of_a_row_among_others(device: str, seed: int, own: bool) -> None:
    case = random_head(seed, device, torch.float16, rows=9, size=300, count=4, own=own)
    together = scored(case)
    for row in range(9):
        ids = case.ids[row : row + 1] if own else case.ids
        alone = scored(case._replace(hidden=case.hidden[row : row + 1], ids=ids))
        assert torch.equal(alone[0], together[row])
    others = case.hidden.clone()
    others[1:] = torch.nan
    assert torch.equal(scored(case._replace(hidden=others))[0], together[0])
    assert not torch.equal(together[0], together[1])


def test_nodes_have_as_many_candidates_as_they_have(device: str, seed: int) -> None:
    case = random_head(seed, device, torch.float32, rows=5, size=100, count=6, own=True)
    for node in range(5):
        case.ids[node, 6 - node :] = -1
    result = scored(case)
    assert torch.equal(torch.isinf(result), case.ids < 0)
    assert_within(result, case.expected, case.tolerance)


def test_an_unscored_row_of_the_head_is_noticed_if_it_is_read(device: str, seed: int) -> None:
    case = random_head(seed, device, torch.float32, rows=2, size=64, count=3, own=False)
    unread = next(token for token in range(200) if token not in case.ids)
    case.ids[1] = unread
    assert torch.isnan(scored(case)[:, 1]).all()


def test_what_does_not_fit_is_refused(device: str) -> None:
    case = random_head(1, device, torch.float32, rows=2, size=64, count=3, own=False)
    wrong = {
        "norm has shape": case._replace(norm=case.norm[:-1]),
        "hidden is torch.float64": case._replace(hidden=case.hidden.double()),
        "strides": case._replace(head=case.head.T.contiguous().T),
        "candidates is 17": case._replace(ids=torch.zeros(17, dtype=torch.int32, device=device)),
        "rows of hidden is 65": case._replace(hidden=torch.zeros(65, 64, device=device)),
        "ids is torch.float32": case._replace(ids=case.ids.float()),
    }
    for message, bad in wrong.items():
        with pytest.raises(KernelArgumentError, match=message):
            scored(bad)


def test_the_interpreter_does_not_get_bfloat16(device: str) -> None:
    case = random_head(1, device, torch.bfloat16, rows=2, size=64, count=3, own=False)
    if device == "cuda":
        assert_within(scored(case), case.expected, case.tolerance)
        return
    with pytest.raises(KernelArgumentError, match="bfloat16: Triton's interpreter"):
        scored(case)
