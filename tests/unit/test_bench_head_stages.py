"""The head's argmax in two stages beside the whole head: what is measured, and what is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from specee.bench.decode import head_stages
from specee.bench.report import tables
from specee.errors import ConfigurationError


def test_both_ways_are_measured(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [[5, 6, 7, 8], [9, 10, 11]]
    monkeypatch.setattr(head_stages.prompts, "encoded", lambda *_: texts)
    result = head_stages.measure(["fp32"], ["autoregressive"], model=str(folder), threads=1, tokens=6)
    part = result["weights"]["fp32"]
    assert 0 < part["coarse_bytes"] < part["head_bytes"]
    assert part["made_s"] > 0
    found = part["policies"]["autoregressive"]
    assert found["calls"] > 0
    assert found["head_read_again"] > 0
    assert found["ratio"]["min"] <= found["all"] * (1 + 1e-9)
    assert found["all"] <= found["ratio"]["max"] * (1 + 1e-9)
    [table] = tables.of("head-stages", result)
    assert table.rows[0][:2] == ("fp32", "autoregressive")


def test_the_whole_head_is_the_whole_head(model: Any) -> None:
    native = model.backend._engine
    text, _ = head_stages.once(model, [5, 6, 7], "autoregressive", 6, stages=False)
    assert native.two_stages[0] == 0
    other, _ = head_stages.once(model, [5, 6, 7], "autoregressive", 6, stages=True)
    assert native.two_stages[0] > 0
    assert text == other


def test_another_text_is_no_result(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = iter([[1], [2, 3], [2, 4], [2, 3], [2, 3]])
    monkeypatch.setattr(head_stages, "once", lambda *_, **__: (next(texts), 1.0))
    with pytest.raises(AssertionError, match="another text"):
        head_stages.measure_policy(model, [[5, 6]], "autoregressive", 2)


@pytest.mark.parametrize(
    ("weights", "tokens", "told"), [("int8", 6, "no coarse copy"), ("fp32", 1, "tokens=1")]
)
def test_what_cannot_be_measured(folder: Path, weights: str, tokens: int, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        head_stages.measure([weights], ["autoregressive"], model=str(folder), threads=1, tokens=tokens)
