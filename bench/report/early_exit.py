"""Approximate decoding by exit predictors as tables."""

from __future__ import annotations

from typing import Any

from .numbers import megabytes, percent, ranged, seconds, short
from .table import Table


def tables(result: dict[str, Any]) -> list[Table]:
    """For each format of the weights what leaving early gives, and what its kernels take."""
    found = []
    for part in result["parts"]:
        plain = part["plain"]
        rows = [
            (
                "plain decoding",
                str(part["layers"]),
                "",
                "1x",
                "100 %",
                short(plain["perplexity"]),
                short(plain["perplexity_fp32"]),
            )
        ]
        rows += [
            (
                policy.removeprefix("specee:mode=approximate,"),
                f"{one['exit_layer']:.1f}",
                percent(one["left_early"]),
                ranged(one["speed"], "x"),
                f"{one['agreement']:.1%}",
                f"{one['perplexity']:.3f}",
                f"{one['perplexity_missing_kv']:.3f}",
            )
            for policy, one in part["policies"].items()
        ]
        header = (
            "policy",
            "exit layer",
            "left early",
            "speed",
            "agreement",
            "perplexity",
            "without skipped keys and values",
        )
        what = f"{part['prompts']} prompts, {result['new_tokens']} new tokens"
        note = "perplexity of plain decoding's texts, read off where tokens leave; the last column in fp32"
        found.append(Table(f"Approximate early exit, {part['weights']}: {what}", header, rows, note))
        found.append(_kernels(part))
    return found


def _kernels(part: dict[str, Any]) -> Table:
    kernels = part["kernels"]
    times = kernels["seconds"]
    rows = [
        (
            "a checked layer",
            seconds(kernels["seconds_a_check"]),
            f"{kernels['share_of_a_token']:.2%} of a token",
        ),
        ("the whole head", seconds(times["head"]), megabytes(kernels["head_bytes"])),
        ("candidates", seconds(times["candidates"]), f"{kernels['candidate_bytes'] / 1e3:.1f} kB"),
    ]
    return Table(f"Its kernels, {part['weights']}", ("", "time", ""), rows)


def planted(result: dict[str, Any]) -> list[Table]:
    """Where tokens leave in planted models, and speed beside what follows from it."""
    rows = [
        (
            f"k = {part['k']}, {part['weights']}",
            f"{part['exit_layer']['mean']:.1f}",
            f"{part['exit_layer']['median']:.0f} to {part['exit_layer']['p90']:.0f}",
            f"{part['agreement']:.1%}",
            f"{part['total']:.2f}x",
            f"{part['expected']['skipped and completed']:.2f}x",
            f"{part['expected']['skipped for free']:.2f}x",
            f"{part['layers_passed']:.0%}",
            f"{part['layer_seconds']:.0%}",
        )
        for part in result["parts"]
    ]
    header = (
        "model",
        "exit layer",
        "median to 90 %",
        "agreement",
        "speed",
        "expected",
        "if skipped layers were free",
        "layers",
        "their time",
    )
    what = f"{result['parts'][0]['prompts']} prompts, {result['new_tokens']} new tokens"
    note = "layers: passed before a token left, of all; their time: with completion, of plain decoding's"
    return [Table(f"Planted models, {result['policy']}: {what}", header, rows, note)]


def calibration(result: dict[str, Any]) -> list[Table]:
    """What bounds are certified, and how often they fail on other generations."""
    rows = [
        (
            bound,
            "none" if one["threshold"] is None else f"{one['threshold']:g}",
            percent(one["certified"]),
            f"{one['failed']:.1%}",
            "" if one["mean_loss"] is None else f"{one['mean_loss']:.4f}",
        )
        for bound, one in result["bounds"].items()
    ]
    header = ("bound", "threshold", "halves certified", "failed", "mean loss")
    what = f"{result['generations']} generations, {result['splits']} splits"
    note = f"failed may be {result['margin']:.1%} at most; threshold: with all generations"
    return [Table(f"Bounds on the disagreement: {what}", header, rows, note)]
