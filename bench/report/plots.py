"""Plots for the report, as SVG: black on white, units on every axis."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Sequence
from typing import Any

from .kernels import KernelPoint, roofs

COLOURS = (
    "#1f77b4",
    "#d62728",
    "#2ca02c",
    "#9467bd",
    "#ff7f0e",
    "#8c564b",
    "#e377c2",
    "#17becf",
    "#bcbd22",
    "#111111",
)
PEER = "#9a9a9a"
_APART = 1.25
MARKERS = "osD^vP*X"
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "text.color": "black",
    "svg.hashsalt": "specee",
    "svg.fonttype": "path",
}


def _figure(width: float, height: float, columns: int = 1) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure  # no window system, no global state

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    return figure, list(axes)


def drawn(make: Any, *arguments: Any, kind: str = "svg") -> bytes:
    """The image that ``make`` draws; the same input gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context(_STYLE):
        figure = make(*arguments)
        buffer = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(buffer, format=kind, metadata=metadata, dpi=110)
    return buffer.getvalue()


def speed_bars(result: dict[str, Any]) -> Any:
    """Decoding and prompt tokens per second of every contender, with their range."""
    contenders = result["contenders"]
    names = sorted(contenders, key=lambda name: contenders[name]["decode_tokens_s"]["median"])
    figure, axes = _figure(11, 1.3 + 0.48 * len(names), 2)
    for axis, key, title in zip(
        axes, ("decode_tokens_s", "prompt_tokens_s"), ("Decoding", "Reading the prompt"), strict=True
    ):
        found = [contenders[name][key] for name in names]
        medians = [spread["median"] for spread in found]
        low = [spread["median"] - spread["min"] for spread in found]
        high = [spread["max"] - spread["median"] for spread in found]
        colours = [COLOURS[0] if "bytes_per_token" in contenders[name] else PEER for name in names]
        places = range(len(names))
        axis.barh(places, medians, color=colours, height=0.62)
        axis.errorbar(medians, places, xerr=[low, high], fmt="none", ecolor="black", elinewidth=1, capsize=3)
        right = max(spread["max"] for spread in found)
        for place, spread in zip(places, found, strict=True):
            axis.text(spread["max"] + 0.02 * right, place, f"{spread['median']:.0f}", va="center")
        axis.set(title=title, xlabel="tokens/s: median, whiskers min to max", xlim=(0, 1.13 * right))
        axis.set_yticks(list(places), names if axis is axes[0] else [""] * len(names))
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x", color="#dddddd")
    return figure


def row_curves(result: dict[str, Any]) -> Any:
    """Cost of verifying n rows, and of one row after a long text, each beside the least."""
    figure, (left, right) = _figure(11, 4.0, 2)
    most, longest = 1, 1.0
    for colour, marker, (name, found) in zip(COLOURS, MARKERS, result["weights"].items(), strict=False):
        rows = found["verify"]["rows"]
        counts = [int(count) for count in rows]
        _with_range(left, counts, [rows[str(c)]["ratio"] for c in counts], colour, marker, name)
        most = max(most, *counts)
        contexts = found["context"]["contexts"]
        lengths = [int(length) for length in contexts]
        _with_range(right, lengths, [contexts[str(n)]["ms"] for n in lengths], colour, marker, name)
        longest = max(longest, *(contexts[str(n)]["ms"]["median"] for n in lengths))
    left.plot([1, most], [1, most], color=PEER, linestyle="--", label="one by one")
    left.axhline(1, color=PEER, linewidth=0.8)
    left.set(
        title="Verifying n rows in one pass",
        xlabel="rows",
        ylabel="time, times that of one row",
        ylim=(0, None),
        xlim=(0, most + 0.5),
    )
    highest = max(
        v["ratio"]["median"] for f in result["weights"].values() for v in f["verify"]["rows"].values()
    )
    left.set_ylim(0, 1.25 * max(highest, 2.0))
    right.set(title="One row after a long text", xlabel="context, tokens", ylabel="time, ms")
    right.set_ylim(0, 1.25 * longest)
    right.set_xlim(0, None)
    for axis in (left, right):
        axis.grid(color="#dddddd")
        axis.legend(frameon=False, loc="lower right")
    return figure


def _with_range(
    axis: Any, x: Sequence[float], spreads: Sequence[dict[str, float]], colour: str, marker: str, label: str
) -> None:
    axis.plot(x, [s["median"] for s in spreads], color=colour, marker=marker, markersize=5, label=label)


def roofline(points: Sequence[KernelPoint], title: str) -> Any:
    """Multiply-adds a second over multiply-adds a byte: one point a kernel, under memory and arithmetic."""
    figure, (axis,) = _figure(11, 6.2)
    bandwidth, tops = roofs(points)
    formats = list(dict.fromkeys(point.format for point in points))
    ops = list(dict.fromkeys(point.op for point in points))
    colours = dict(zip(formats, itertools.cycle(COLOURS), strict=False))
    markers = dict(zip(ops, itertools.cycle(MARKERS), strict=False))
    for point in points:
        axis.plot(
            point.intensity, point.rate, marker=markers[point.op], color=colours[point.format], markersize=6,
            markeredgecolor="white", markeredgewidth=0.4, linestyle="", alpha=0.85,
        )  # fmt: skip
    left = min(point.intensity for point in points) / 3  # room for the label of the roof
    right = max(*(point.intensity for point in points), max(tops.values()) / bandwidth) * 6
    _roofs(axis, bandwidth, tops, left, right)
    axis.set(
        xscale="log", yscale="log", xlim=(left, right), title=title,
        xlabel="intensity, multiply-adds per byte of memory traffic", ylabel="speed, 10⁹ multiply-adds/s",
    )  # fmt: skip
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter("{x:g}")
    axis.grid(which="major", color="#dddddd")
    axis.legend(
        handles=_legend(colours, markers), frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5)
    )
    return figure


def _roofs(axis: Any, bandwidth: float, tops: dict[str, float], left: float, right: float) -> None:
    highest = max(tops.values())
    axis.plot([left, highest / bandwidth], [left * bandwidth, highest], color="black", linewidth=1.4)
    at = 1.15 * left
    axis.text(
        at, 1.05 * at * bandwidth, f"memory: {bandwidth:.0f} GB/s", fontsize=8.5, va="bottom",
        rotation=math.degrees(math.atan(bandwidth)), rotation_mode="anchor", transform_rotates_text=True,
    )  # fmt: skip
    for low, high, names in _grouped(tops):
        axis.plot(
            [high / bandwidth, right], [high, high], color="black", linewidth=1.1, linestyle=(0, (4, 2))
        )
        reached = f"{high:,.0f}" if high < 1.02 * low else f"{low:,.0f} to {high:,.0f}"
        axis.annotate(
            f"{', '.join(names)}: {reached}", (right, high), xytext=(-3, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=8.5,
        )  # fmt: skip


def _legend(colours: dict[str, str], markers: dict[str, str]) -> list[Any]:
    from matplotlib.lines import Line2D

    squares = [Line2D([], [], marker="s", color=c, linestyle="", label=name) for name, c in colours.items()]
    shapes = [
        Line2D([], [], marker=m, color="black", linestyle="", label=name) for name, m in markers.items()
    ]
    return [*squares, *shapes]


def _grouped(tops: dict[str, float]) -> list[tuple[float, float, list[str]]]:
    """Least, greatest and names of formats whose roofs are close: one line, so that labels do not overlap."""
    groups: list[tuple[float, float, list[str]]] = []
    for name, value in sorted(tops.items(), key=lambda item: item[1]):
        if groups and value <= _APART * groups[-1][0]:
            low, _, names = groups.pop()
            groups.append((low, value, [*names, name]))
        else:
            groups.append((value, value, [name]))
    return groups
