"""A fit's report as a picture: agreement by place in a chain and by exit layer, loss over training."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specee.errors import BackendUnavailableError, ConfigurationError
from specee.whole_file import check_possible, write_whole

if TYPE_CHECKING:
    from specee.fitting.plan import Report

KINDS = (".png", ".svg")
_BLUE, _RED, _GREY = "#1f77b4", "#d62728", "#9a9a9a"
_STYLE: Any = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.hashsalt": "specee",
}


def check_plot(path: Path) -> None:
    """Raise what :func:`write_plot` would raise, before hours are spent.

    ConfigurationError for a name that ends in neither of :data:`KINDS` or cannot be written,
    BackendUnavailableError without matplotlib.
    """
    if path.suffix.lower() not in KINDS:
        raise ConfigurationError(f"plot {path}: allowed are names that end in {' or '.join(KINDS)}")
    try:
        check_possible(path)
    except OSError as error:
        raise ConfigurationError(
            f"plot {path}: cannot be written ({error.strerror or error}); give a name in a folder that "
            "exists and that you may write to"
        ) from error
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f'a plot needs matplotlib: pip install "specee[bench]" ({error})'
        ) from error


def write_plot(path: Path, report: Report) -> None:
    """Draw a report as PNG or SVG, by the name; the same report gives the same bytes. Raises OSError."""
    import matplotlib as mpl

    kind = path.suffix.lower().removeprefix(".")
    content = io.BytesIO()
    with mpl.rc_context(_STYLE):
        metadata = {"Date": None} if kind == "svg" else {}
        figure(report).savefig(content, format=kind, metadata=metadata, dpi=110)
    write_whole(path, content.getvalue())


def figure(report: Report) -> Any:
    """One panel each; what was not fitted is left empty, and says so."""
    from matplotlib.figure import Figure  # no window system, no global state

    whole = Figure(figsize=(13, 4), layout="constrained")
    chain, layers, losses = whole.subplots(1, 3)
    _chain(chain, report)
    _layers(layers, report)
    _losses(losses, report)
    for axis in (chain, layers, losses):
        axis.grid(axis="y", color="#dddddd")
    return whole


def _chain(axis: Any, report: Report) -> None:
    places = range(1, len(report.agreement) + 1)
    bars = axis.bar(list(places), [100 * share for share in report.agreement], color=_BLUE, width=0.6)
    axis.bar_label(bars, fmt="%.0f")
    axis.set_xticks(list(places))
    axis.set(
        title="Drafter block",
        xlabel="place in a chain",
        ylabel="right, % of drafts on texts held out",
        ylim=(0, 100),
    )


def _layers(axis: Any, report: Report) -> None:
    axis.set(
        title="Exit layers", xlabel="layer", ylabel="right, % of positions on texts held out", ylim=(0, 100)
    )
    if not report.adapters:
        _empty(axis, "no adapters were fitted")
        return
    at = [one.layer for one in report.adapters]
    without = [100 * max(one.own.agreement, one.trimmed.agreement) for one in report.adapters]
    best = [100 * max(head.agreement for head in one.adapted.values()) for one in report.adapters]
    axis.plot(at, without, color=_GREY, marker="o", label="without an adapter")
    axis.plot(at, best, color=_BLUE, marker="o", label="behind the best adapter")
    kept = [(one.layer, 100 * one.adapted[one.kept].agreement) for one in report.adapters if one.kept]
    if kept:
        axis.plot(*zip(*kept, strict=True), "s", color=_RED, markersize=9, fillstyle="none", label="kept")
    axis.set_xticks(at)
    axis.legend(frameon=False)


def _losses(axis: Any, report: Report) -> None:
    axis.set(title="Training of the block", xlabel="share of the training, %", ylabel="loss, nats a token")
    count = len(report.history)
    if not count:
        _empty(axis, "the block was there before")
        return
    axis.plot([100 * (i + 0.5) / count for i in range(count)], report.history, color=_BLUE, marker=".")
    axis.set_xlim(0, 100)


def _empty(axis: Any, why: str) -> None:
    axis.text(0.5, 0.5, why, transform=axis.transAxes, ha="center", va="center", color=_GREY)
