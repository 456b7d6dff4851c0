"""Sizes that no model has are the file's fault, and told of before the engine refuses them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from specee.errors import CheckpointError
from specee.models.hf_config import check_heads
from tests.random_model import BASE

TOO_MUCH = (1 << 24) + 2


@pytest.mark.parametrize(
    "name", ["vocab_size", "hidden_size", "intermediate_size", "head_dim", "max_position"]
)
@pytest.mark.parametrize("size", [0, TOO_MUCH])
def test_absurd_sizes(name: str, size: int) -> None:
    check_heads(BASE, "file")
    check_heads(replace(BASE, max_position=1 << 24), "file")
    with pytest.raises(CheckpointError, match=f"file: {name} is {size}"):
        check_heads(replace(BASE, **{name: size}), "file")


def test_heads_that_are_too_wide_together() -> None:
    with pytest.raises(CheckpointError, match="wide"):
        check_heads(replace(BASE, num_heads=1 << 13, num_kv_heads=1, head_dim=1 << 12), "file")
