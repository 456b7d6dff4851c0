"""The bench of the drop-in: same tokens, honest counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from specee.bench.decode import drop_in
from specee.bench.report import tables
from specee.errors import ConfigurationError
from tests.tiny_models import tiny_folder


def test_stock_and_ours_are_timed_on_the_same_requests(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=1)
    found = drop_in.measure(
        ["autoregressive"],
        weights="fp32",
        model=str(folder),
        threads=1,
        rows=(1, 2),
        tokens=4,
        most_prompts=3,
    )
    assert list(found["rows"]) == ["1", "2"]
    for count, batches in (("1", 3), ("2", 1)):
        own = found["rows"][count]
        assert own["batches"] == own["same_tokens"] == batches
        assert set(own["tokens_s"]) == {drop_in.STOCK, "autoregressive"}
        assert all(rates["min"] > 0 for rates in own["tokens_s"].values())
    assert found["rows"]["1"]["times_one_row"] == {}
    assert set(found["rows"]["2"]["times_one_row"]) == {drop_in.STOCK, "autoregressive"}
    (table,) = tables.of("drop-in", found)
    assert [row[:2] for row in table.rows][:2] == [(drop_in.STOCK, "1"), ("autoregressive", "1")]


def test_batches_are_full() -> None:
    texts = [[1], [2], [3]]
    assert drop_in._batches(texts, 1) == [[[1]], [[2]], [[3]]]
    assert drop_in._batches(texts, 3) == [texts]
    assert all(len(batch) == 8 for batch in drop_in._batches(texts, 8))


@pytest.mark.parametrize("options", [{"tokens": 0}, {"rounds": 0}, {"rows": (0,)}])
def test_numbers_that_cannot_be(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match="1 or more"):
        drop_in.measure(threads=1, **options)  # type: ignore[arg-type]
