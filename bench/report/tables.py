"""Every kind of result as tables, the same for the terminal and for HTML."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specee.errors import ConfigurationError

from . import contests, early_exit, kernels, speculation
from .numbers import megabytes, percent, percent_ranged, ranged, seconds, short
from .table import Table, as_text

__all__ = ["Table", "as_text", "of"]


def of(kind: str, result: dict[str, Any], *, detailed: bool = False) -> list[Table]:
    """Tables of one result; none for a kind that has none. ``detailed`` is for readers who can scroll."""
    make = _KINDS.get(kind)
    try:
        found = make(result) if make else []
        return [*found, *_kernel_details(result)] if detailed and kind == "kernels" else found
    except KeyError as error:
        raise ConfigurationError(
            f"a result of {kind} has no {error}: another version measured it; measure it again"
        ) from error


def _speed(result: dict[str, Any]) -> list[Table]:
    rows = []
    for name, found in result["contenders"].items():
        share, peak = found.get("share_of_bandwidth"), found.get("peak_bytes")
        accepted = found.get("acceptance")
        rows.append(
            (
                name,
                ranged(found["decode_tokens_s"]),
                ranged(found["prompt_tokens_s"]),
                seconds(found["first_token_s"]["median"]),
                short(found["tokens_per_step"]) + (f" ({percent(accepted)})" if accepted is not None else ""),
                percent_ranged(share) if share else "",
                megabytes(peak) if peak else "",
            )
        )
    header = (
        "contender",
        "decode tokens/s",
        "prompt tokens/s",
        "first token",
        "tokens/step",
        "of bandwidth",
        "memory",
    )
    what = f"{result['turns']} turns, {result['new_tokens']} new tokens, {result['threads']} threads"
    bandwidth = f"memory read at {ranged(result['bandwidth_gb_s'])} GB/s; median (min to max) over turns"
    tables = [Table(f"Decoding speed: {what}", header, rows, bandwidth), *speculation.drafts(result)]
    ratios = [
        (mine, peer, ranged(found["decode"], "x"), ranged(found["prompt"], "x"))
        for mine, peers in result["ratios"].items()
        for peer, found in peers.items()
    ]
    if ratios:
        tables.append(Table("Ratios, turn by turn", ("of", "to", "decoding", "prompt"), ratios, names=2))
    if missing := result.get("missing"):
        tables.append(Table("Not measured", ("contender", "why"), list(missing.items()), names=2))
    return tables


def _nodes(result: dict[str, Any]) -> list[Table]:
    """Microseconds of calls by nodes, and of the decisions that follow."""
    found = []
    for weights, calls in result["weights"].items():
        rows = [
            (
                count,
                *(
                    f"{short(calls[name][count]['us']['median'])} us, "
                    f"{short(calls[name][count]['ratio_of_medians'])}x"
                    for name in calls
                ),
            )
            for count in next(iter(calls.values()))
        ]
        found.append(Table(f"Nodes of a tree beside one row, {weights}", ("nodes", *calls), rows))
    decisions = result["decisions"]
    taken = [(count, f"{short(us['median'])} us") for count, us in decisions["us"].items()]
    note = (
        f"{short(decisions['us_per_node'])} us a node; farthest off a straight line: "
        f"{percent(decisions['farthest_off_the_line'])}"
    )
    return [*found, Table("Paths decided from nodes, two layers", ("nodes", "time"), taken, note)]


def _verified(weights: dict[str, Any], part: str) -> Table:
    first = next(iter(weights.values()))[part]
    rows = [
        (
            count,
            *(
                f"{short(found[part]['rows'][count]['ms']['median'])} ms, "
                f"{short(found[part]['rows'][count]['ratio']['median'])}x"
                for found in weights.values()
            ),
        )
        for count in first["rows"]
    ]
    return Table(f"Verifying n rows at context {first['context']}, beside one row", ("rows", *weights), rows)


def _builds(result: dict[str, Any]) -> list[Table]:
    found = []
    for part in result["compared"]:
        builds = part["builds"]
        rows = [
            (
                count,
                *(
                    f"{short(build['rows'][count]['ms']['median'])} ms, "
                    f"{short(build['rows'][count]['ratio']['median'])}x"
                    for build in builds
                ),
            )
            for count in builds[0]["rows"]
        ]
        rows_of = "texts" if part.get("rows") == "apart" else "rows"
        title = f"Builds, {part['weights']}, context {part['context']}: times the first, turn by turn"
        names = [build["commit"] or f"build {at + 1}" for at, build in enumerate(builds)]
        header = (rows_of, *(f"{name}, {build['isa']}" for name, build in zip(names, builds, strict=True)))
        found.append(Table(title, header, rows))
    return found


def _rows(result: dict[str, Any]) -> list[Table]:
    weights = result["weights"]
    if not weights:
        return []
    first = next(iter(weights.values()))
    context = [
        (
            name,
            length,
            f"{short(cost['ms']['median'])} ms",
            megabytes(cost["kv_bytes"]),
            f"{short(cost['gb_s']['median'])} GB/s",
            percent_ranged(cost["share_of_bandwidth"]),
        )
        for name, found in weights.items()
        for length, cost in found["context"]["contexts"].items()
    ]
    # Results of earlier releases have one context.
    return [
        *(_verified(weights, part) for part in ("verify", "verify_long") if part in first),
        Table(
            "One row after a long text",
            ("weights", "context", "time", "keys and values", "read", "of bandwidth"),
            context,
        ),
    ]


def _batch(result: dict[str, Any]) -> list[Table]:
    rows = [
        (name, size, ranged(found["decode_tokens_s"]), ranged(found["ratio"], "x"))
        for name, sizes in result["weights"].items()
        for size, found in sizes.items()
    ]
    return [Table("Sequences decoded together", ("weights", "sequences", "tokens/s", "ratio to one"), rows)]


def _formats(result: dict[str, Any]) -> list[Table]:
    rows = [
        (
            name,
            ranged(found["decode_tokens_s"]),
            ranged(found["prompt_tokens_s"]),
            f"{found['perplexity']:.3f}",
            f"{found['perplexity_difference']:+.2%}" if "perplexity_difference" in found else "",
            megabytes(found["weight_bytes"]),
            megabytes(found["peak_bytes"]),
        )
        for name, found in result["formats"].items()
    ]
    header = (
        "weights",
        "decode tokens/s",
        "prompt tokens/s",
        "perplexity",
        "to fp32",
        "weights in memory",
        "peak",
    )
    text, base = result["text"], result["reference_perplexity"]
    note = f"perplexity on {text['tokens']:,} tokens in windows of {text['window']}"
    if base is not None:
        note += f"; transformers fp32: {base:.3f}"
    return [Table("Formats of the weights", header, rows, note)]


def _perplexity(result: dict[str, Any]) -> list[Table]:
    differences = result.get("difference", {})
    rows = [
        (name, f"{value:.4f}", f"{differences[name]:+.3%}" if name in differences else "")
        for name, value in result["perplexity"].items()
    ]
    title = f"Perplexity on {result['tokens']:,} tokens in windows of {result['window']}"
    return [Table(title, ("weights", "perplexity", "to transformers fp32"), rows)]


def _memory(result: dict[str, Any]) -> list[Table]:
    rows = [
        (
            str(number),
            seconds(run["load_s"]),
            megabytes(run["peak_bytes"]),
            f"{short(run['ratio'])}x" if "ratio" in run else "",
        )
        for number, run in enumerate(result["runs"], 1)
    ]
    title = f"Load and peak memory of {result['contender']}, context {result['context']}"
    return [Table(title, ("run", "load", "peak", "of weights and cache"), rows)]


def _exactness(result: dict[str, Any]) -> list[Table]:
    logits, found = result["logits"], result["continuations"]
    rows = [
        ("largest difference of a logit", f"{max(logits['largest_difference']):.2g}"),
        ("prompts, greedy tokens compared", f"{found['prompts']}, {found['tokens']:,}"),
        ("near-ties decided otherwise", str(len(found["near_ties"]))),
        ("other divergences", str(len(found["divergences"]))),
    ]
    return [Table("fp32 beside transformers fp32", ("", "found"), rows)]


def _kernels(result: dict[str, Any]) -> list[Table]:
    found = kernels.sums(kernels.points(result))
    if not found:
        return []
    counts = sorted({count for total in found for count in total.seconds})
    rows = []
    for total in found:
        least = total.seconds[min(total.seconds)]
        rows.append(
            (
                f"{total.model} {total.format}",
                f"{short(total.bytes / least / 1e9)} GB/s",
                percent(total.share),
                f"{short(total.speedup)}x" if total.speedup else "",
                *(f"{short(total.seconds[c] / least)}x" if c in total.seconds else "" for c in counts[1:]),
            )
        )
    header = (
        "products of a layer, and the head",
        "read",
        "of the bound",
        "torch",
        *(f"{c} rows" for c in counts[1:]),
    )
    note = f"at {counts[0]} row; torch: times faster than torch's product; then the cost of more rows"
    return [Table(f"Kernels, {result['threads']} threads", header, rows, note)]


def _kernel_details(result: dict[str, Any]) -> list[Table]:
    found = kernels.points(result)
    header = (
        "operation",
        "format",
        "shape",
        "rows",
        "time",
        "GB/s",
        "10⁹ multiply-adds/s",
        "of the bound",
        "torch",
    )

    def line(point: kernels.KernelPoint) -> tuple[str, ...]:
        where = f" at {point.context}" if point.context else ""
        return (
            point.op + where,
            point.format,
            " x ".join(map(str, point.shape)),
            str(point.rows),
            seconds(point.seconds),
            short(point.gb_s),
            short(point.rate),
            percent(point.share) if point.share else "in the cache",
            f"{short(point.speedup)}x" if point.speedup else "",
        )

    models = dict.fromkeys(point.model for point in found)
    return [
        Table(model, header, [line(point) for point in found if point.model == model]) for model in models
    ]


def _drop_in(result: dict[str, Any]) -> list[Table]:
    rows = [
        (
            name,
            count,
            ranged(rates),
            ranged(found["times_stock"][name], "x") if name in found["times_stock"] else "",
            ranged(found["times_one_row"][name], "x") if name in found["times_one_row"] else "",
        )
        for count, found in result["rows"].items()
        for name, rates in found["tokens_s"].items()
    ]
    alike = ", ".join(
        f"{found['same_tokens']} of {found['batches']} at {count}" for count, found in result["rows"].items()
    )
    what = f"{result['weights']}, {result['new_tokens']} new tokens, {result['threads']} threads"
    return [
        Table(
            f"generate() of transformers, stock and accelerated: {what}",
            ("decoded by", "rows", "tokens/s", "times stock", "times one row"),
            rows,
            f"median (min to max) over batches; batches with the tokens of stock: {alike}",
        )
    ]


def _clients(result: dict[str, Any]) -> list[Table]:
    rounds = result["rounds"]
    rows = [
        (
            name,
            ranged(found["seconds_stock"]),
            ranged(found["seconds"]),
            ranged(found["times_stock"], "x"),
            f"{found['same_answers']} of {rounds}",
        )
        for name, found in result["clients"].items()
    ]
    missing = ", ".join(result["not_measured"])
    what = f"{result['weights']}, {result['threads']} threads"
    return [
        Table(
            f"Clients of transformers, stock and accelerated: {what}",
            ("client", "stock, s", "accelerated, s", "times faster", "same answers"),
            rows,
            "median (min to max) over rounds" + (f"; not measured: {missing}" if missing else ""),
        )
    ]


_KINDS: dict[str, Callable[[dict[str, Any]], list[Table]]] = {
    "speed": _speed,
    "speculation": _speed,
    "rows": _rows,
    "builds": _builds,
    "nodes": _nodes,
    "batch": _batch,
    "formats": _formats,
    "perplexity": _perplexity,
    "memory": _memory,
    "exactness": _exactness,
    "lossless": speculation.lossless,
    "drafters": speculation.drafters,
    "overhead": speculation.overhead,
    "head-stages": speculation.head_stages,
    "drop-in": _drop_in,
    "clients": _clients,
    "planted": contests.planted,
    "regret": contests.regret,
    "ablation": contests.ablation,
    "splices": contests.splices,
    "early-exit": early_exit.tables,
    "planted-exits": early_exit.planted,
    "calibration": early_exit.calibration,
    "trees": contests.trees,
    "kernels": _kernels,
}
