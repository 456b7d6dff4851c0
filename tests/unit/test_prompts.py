"""Prompts in, results out, in every kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from specee.errors import ConfigurationError
from specee.prompts import Prompts, read_prompts

VOCAB = 50
ROWS = [[9, 9, 1], [2, 3, 4]]
MASK = [[0, 0, 1], [1, 1, 1]]


def read(ids: Any, mask: Any = None, pad: int | None = None) -> Prompts:
    return read_prompts(ids, mask, pad, VOCAB)


@pytest.mark.parametrize("convert", [torch.tensor, np.array, list, lambda x: np.array(x, np.int32)])
def test_every_kind_gives_the_same_rows_and_comes_back(convert: Any) -> None:
    prompts = read(convert(ROWS), convert(MASK))
    assert prompts.rows == [(1,), (2, 3, 4)]
    done = prompts.completed([[5, 6], [7]], pad=8)
    assert type(done) is type(convert(ROWS))
    assert np.asarray(done).tolist() == [[9, 9, 1, 5, 6], [2, 3, 4, 7, 8]]


def test_integer_tensors_come_back_as_longs() -> None:
    assert read(torch.tensor(ROWS, dtype=torch.int32)).completed([[1], [1]], 0).dtype == torch.int64


def test_a_flat_list_is_one_prompt() -> None:
    prompts = read([1, 2, 3], [0, 1, 1])
    assert prompts.rows == [(2, 3)]
    assert prompts.completed([[4]], 0) == [1, 2, 3, 4]


def test_boolean_masks() -> None:
    assert read(np.array(ROWS), np.array(MASK, bool)).rows == [(1,), (2, 3, 4)]


def test_leading_padding_is_recognised_without_a_mask() -> None:
    assert read([[9, 9, 1, 9], [2, 9, 3, 4]], pad=9).rows == [(1, 9), (2, 9, 3, 4)]
    assert read(ROWS).rows == [(9, 9, 1), (2, 3, 4)]
    assert read([[9, 9]], pad=9).rows == [(9,)]


def test_streamers_get_what_the_caller_uses() -> None:
    assert isinstance(read(torch.tensor([[1]])).for_streamer([4]), torch.Tensor)
    streamed = read([[1]]).for_streamer([4, 5])
    assert isinstance(streamed, np.ndarray)
    assert streamed.tolist() == [4, 5]


@pytest.mark.parametrize(
    ("ids", "mask", "match"),
    [
        ([], None, "shape"),
        ([[]], None, "at least one"),
        ([[1, 2], [3]], None, "different lengths"),
        (np.array([1, 2]), None, r"\(batch, tokens\)"),
        (torch.ones(1, 2, 3, dtype=torch.long), None, r"\(batch, tokens\)"),
        ([[1.5]], None, "whole numbers"),
        ([[50]], None, r"50.*0\.\.49"),
        ([[-1]], None, "-1"),
        ("text", None, "str"),
        ([[1, 2]], [[1]], "must agree"),
        ([[1, 2]], [[1, 0]], "left"),
        ([[1, 2, 3]], [[1, 0, 1]], "left"),
        ([[1, 2]], [[0, 0]], "row 0"),
        ([[1, 2]], [[1, 2]], "0 and 1"),
    ],
)
def test_wrong_prompts_are_refused(ids: Any, mask: Any, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        read(ids, mask)
