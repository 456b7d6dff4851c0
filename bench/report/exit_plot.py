"""Approximate decoding by exit predictors as a picture: what each threshold gains, and what it costs.

python -m bench.report.exit_plot bench/results/early-exit.json early-exit.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .plots import COLOURS, MARKERS, drawn

_PANELS = (
    ("exit_layer", "mean exit layer", 1.0),
    ("speed", "speed, times plain decoding", 1.0),
    ("agreement", "tokens that are the full model's, %", 100.0),
    ("perplexity", "perplexity", 1.0),
)


def exit_curves(result: dict[str, Any]) -> Any:
    """A panel a quantity, a curve for each format of the weights and set of checked layers, by threshold."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter

    figure = Figure(figsize=(11, 7.4), layout="constrained")
    axes = figure.subplots(2, 2).ravel()
    for axis, (key, label, scale) in zip(axes, _PANELS, strict=True):
        for colour, part in zip(COLOURS, result["parts"], strict=False):
            for marker, (layers, points) in zip(MARKERS, _curves(part).items(), strict=False):
                values = [scale * _middle(point[key]) for _, point in points]
                style = "-" if layers == "all" else "--"
                name = f"{part['weights']}, {'all layers' if layers == 'all' else 'scheduled layers'}"
                axis.plot([at for at, _ in points], values, style, color=colour, marker=marker, label=name)
            if key == "perplexity":
                _missing(axis, part, colour)
        axis.set(xlabel="threshold of the predictor's chance", ylabel=label)
        axis.grid(color="#dddddd")
    axes[1].axhline(1, color="black", linewidth=0.8)
    axes[3].set_yscale("log", subs=(1, 2, 5))
    axes[3].yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes[3].yaxis.set_minor_formatter(FormatStrFormatter("%g"))
    axes[0].legend(frameon=False)
    dotted = [line for line in axes[3].get_lines() if line.get_linestyle() == ":"]
    axes[3].legend(handles=dotted, frameon=False)  # the others are the first panel's
    return figure


def _missing(axis: Any, part: dict[str, Any], colour: str) -> None:
    """The same thresholds without the keys and values of skipped layers."""
    points = _curves(part).get("scheduled", [])
    axis.plot(
        [at for at, _ in points],
        [point["perplexity_missing_kv"] for _, point in points],
        ":",
        color=colour,
        label=f"{part['weights']}, scheduled, without skipped keys and values",
    )


def _curves(part: dict[str, Any]) -> dict[str, list[tuple[float, dict[str, Any]]]]:
    """By which layers are checked: thresholds, ascending, and what they gave."""
    found: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for policy, point in part["policies"].items():
        settings = dict(pair.split("=") for pair in policy.partition(":")[2].split(","))
        found.setdefault(settings.get("layers", "scheduled"), []).append(
            (float(settings["threshold"]), point)
        )
    return {layers: sorted(points, key=lambda point: point[0]) for layers, points in found.items()}


def _middle(value: Any) -> float:
    return float(value["median"] if isinstance(value, dict) else value)


def main() -> None:
    """Read a result, write a picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("result", type=Path)
    parser.add_argument("picture", type=Path, help="name ends in .svg or .png")
    options = parser.parse_args()
    kind = options.picture.suffix.removeprefix(".")
    if kind not in ("svg", "png"):
        parser.error(f"{options.picture}: allowed are names that end in .svg or .png")
    options.picture.write_bytes(drawn(exit_curves, json.loads(options.result.read_text()), kind=kind))


if __name__ == "__main__":
    main()
