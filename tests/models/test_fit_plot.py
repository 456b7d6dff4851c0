"""The picture of a fit's report."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from specee.errors import BackendUnavailableError, ConfigurationError
from specee.fitting.adapter_report import Head, LayerReport
from specee.fitting.plan import Report
from specee.fitting.plot import check_plot, figure, write_plot

pytest.importorskip("matplotlib")
LAYERS = (
    LayerReport(3, Head(0.1, 0.8), Head(0.12, 0.9), {16: Head(0.3, 1.1), 64: Head(0.31, 1.0)}, 16),
    LayerReport(6, Head(0.4, 0.8), Head(0.35, 0.9), {16: Head(0.45, 0.9), 64: Head(0.5, 0.95)}, None),
)
REPORT = Report(
    tokens=10, texts=2, vocabulary=7, coverage=0.9, layers=(1, 2), losses=[1.0], agreement=[0.5, 0.25, 0.125],
    history=[5.0, 4.0, 3.5, 3.0], adapters=LAYERS, exits=None, losses_by_threshold={}, cut_short={},
    seconds=1.0,
)  # fmt: skip


def lines(axis: object) -> dict[str, tuple[list[float], list[float]]]:
    """By label, what is drawn."""
    found = axis.get_lines()  # type: ignore[attr-defined]
    return {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in found}


def test_the_panels_show_the_report() -> None:
    chain, layers, losses = figure(REPORT).axes
    assert [bar.get_height() for bar in chain.patches] == [50.0, 25.0, 12.5]
    drawn = lines(layers)
    assert drawn["without an adapter"] == ([3, 6], [12.0, 40.0])
    assert drawn["behind the best adapter"] == ([3, 6], [31.0, 50.0])
    assert drawn["kept"] == ([3], [30.0])
    ((xs, ys),) = lines(losses).values()
    assert ys == REPORT.history
    assert xs == [12.5, 37.5, 62.5, 87.5]
    for axis in (chain, layers, losses):
        assert axis.get_xlabel()
        assert axis.get_ylabel()


def test_what_was_not_fitted_says_so() -> None:
    _, layers, losses = figure(replace(REPORT, adapters=(), history=[])).axes
    assert [text.get_text() for text in layers.texts] == ["no adapters were fitted"]
    assert [text.get_text() for text in losses.texts] == ["the block was there before"]
    none_kept = replace(REPORT, adapters=(LAYERS[1],))
    assert "kept" not in lines(figure(none_kept).axes[1])


def test_files(tmp_path: Path) -> None:
    for name in ("a.png", "a.svg", "b.SVG"):
        check_plot(tmp_path / name)
        write_plot(tmp_path / name, REPORT)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert ElementTree.parse(tmp_path / "a.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.SVG").read_bytes()


def test_what_cannot_be_drawn_is_told_of_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "a", "png"):
        with pytest.raises(ConfigurationError, match=r"\.png or \.svg"):
            check_plot(tmp_path / name)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        check_plot(tmp_path / "missing" / "a.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendUnavailableError, match=r"specee\[bench\]"):
        check_plot(tmp_path / "a.png")
