"""Tables of policies in turns with plain decoding: planted models, regret, ablation, splices, trees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .numbers import percent, short
from .table import Table

_MOST = 3  # sources or lengths named
_NOTE = (
    "times as fast as plain decoding, of all prompts together, then median (10th to 90th percentile) over "
    "prompts; in shadow: of the time of requests, and while stepped aside"
)
_WORK = ("accepted", "tokens/round", "in shadow", "aside", "rounds by exit layer", "rounds by length")


def planted(result: dict[str, Any]) -> list[Table]:
    """For each model the policies and static settings, with what each policy reached of the best one."""
    tables = []
    for part in result["parts"]:
        names: dict[str, list[str]] = {}
        for name, policy in part["static"].items():
            names.setdefault(policy, []).append(name)
        rows = [
            (
                policy + (f" ({' and '.join(names[policy])} static)" if policy in names else ""),
                *_speed(found),
                _share(part, policy),
                *_work(found),
            )
            for policy, found in part["policies"].items()
        ]
        title = (
            f"Layers beyond k={part['k']} barely act, {part['weights']}: an exit there agrees in "
            f"{percent(part['agreement'])} of tokens"
        )
        header = ("policy", "tokens/s", "decoding", "requests", "of the best static", *_WORK)
        note = f"{_NOTE}; {len(part['swept'])} static settings were swept"
        tables.append(Table(title, header, rows, _with_differing(note, part)))
    return tables


def _share(part: dict[str, Any], policy: str) -> str:
    ratio = part["share_of_best"].get(policy)
    return percent(ratio["total"]) if ratio else ""


def by_part(title: str, result: dict[str, Any]) -> list[Table]:
    """A table for each model or file of prompts."""
    header = ("policy", "tokens/s", "decoding", "requests", *_WORK)
    return [
        Table(
            f"{title}: {part['label']}, {part['prompts']} prompts",
            header,
            [(policy, *_speed(found), *_work(found)) for policy, found in part["policies"].items()],
            _with_differing(_NOTE, part),
        )
        for part in result["parts"]
    ]


def regret(result: dict[str, Any]) -> list[Table]:
    """For each file of prompts and kind of weights."""
    fitted = "" if result.get("fitted", True) else ", nothing fitted"
    return by_part("Beside plain decoding" + fitted, result)


def ablation(result: dict[str, Any]) -> list[Table]:
    """For each model and kind of weights."""
    return by_part("Variants", result)


def splices(result: dict[str, Any]) -> list[Table]:
    """For each pair of models: how soon plans are good, and what they take."""
    soon = result["soon"]
    header = (
        "policy",
        "texts",
        "best static",
        "plain is good",
        "rounds until good",
        f"within {soon}",
        "never",
        "good later",
        "worth later",
        "over plain",
        "made anew",
        "us a plan",
        "us a round",
    )
    note = (
        f"good: worth {percent(result['good'])} of the text's best static setting or more; later: after "
        f"{soon} rounds; texts: all, and those whose best setting is at the planted layer; over plain: by "
        "the latency table; a round: planning and learning, real time"
    )
    tables = []
    for part in result["parts"]:
        rows = []
        for policy, found in part["policies"].items():
            plan = found["plan_us"]
            taken = (
                f"{found['over_plain']:.3f}x",
                percent(found["made_anew"]),
                f"{short(plan['median'])}, 90 % under {short(plan['p90'])}",
                short(found["round_us"]),
            )
            rows.append((policy, "all", *_followed(found["texts"]), *taken))
            rows.append((policy, "planted", *_followed(found["planted"]), *[""] * len(taken)))
        tables.append(Table(f"Texts that change: {part['label']}", header, rows, note, names=2))
    return tables


def _followed(found: dict[str, Any]) -> tuple[str, ...]:
    best, rounds = found["best_static"], found["rounds"]
    good, value = found["later_good"], found["later_value"]
    told = found["count"] - found["short"]
    return (
        f"{best:.2f}x" if best is not None else "",
        f"{found['plain_good']} of {found['count']}",
        f"{short(rounds['median'])}, most {rounds['max']}" if rounds else "",
        f"{found['soon']} of {told}",
        f"{found['never']} of {told}",
        percent(good) if good is not None else "",
        percent(value) if value is not None else "",
    )


def trees(result: dict[str, Any]) -> list[Table]:
    """For each kind of weights; what rows take is why sizes are what they are."""
    header = ("policy", "tokens/s", "decoding", "drafted/round", "accepted/round", "rounds by size")
    tables = []
    for part in result["parts"]:
        rows = [
            (
                policy,
                *_speed(found)[:2],
                short(found["drafted_per_round"]),
                short(found["accepted_per_round"]),
                _most(found["lengths"]),
            )
            for policy, found in part["policies"].items()
        ]
        taken = ", ".join(f"{count}: {short(took)}" for count, took in part["row_ms"].items())
        title = f"Trees beside chains: {part['label']}, {part['prompts']} prompts"
        note = f"decoding: times as fast as plain decoding; milliseconds of a pass by rows {taken}"
        tables.append(Table(title, header, rows, _with_differing(note, part)))
    return tables


def _with_differing(note: str, part: dict[str, Any]) -> str:
    """So that nobody reads the speed of something wrong."""
    wrong = [f"{policy} in {len(found)} prompts" for policy, found in part["differing"].items()]
    return f"{note}; TOKENS DIFFER: {', '.join(wrong)}" if wrong else note


def _speed(found: dict[str, Any]) -> tuple[str, ...]:
    return short(found["tokens_s"]), _spread(found["decode"]), f"{found['request']['total']:.3f}x"


def _work(found: dict[str, Any]) -> tuple[str, ...]:
    shadow = found["shadow"]
    return (
        percent(found["acceptance"]) if found["drafted"] else "",
        short(found["tokens_per_round"]),
        f"{shadow['all']:.1%}",
        f"{shadow['aside']:.1%}" if shadow["time_aside"] else "",
        _most(found["sources"]),
        _most(found["lengths"]),
    )


def _spread(ratio: Mapping[str, float]) -> str:
    """Three decimals throughout: what is looked for is a few parts in a hundred."""
    return f"{ratio['total']:.3f}x, {ratio['median']:.3f} ({ratio['p10']:.3f} to {ratio['p90']:.3f})"


def _most(counts: Mapping[str, int]) -> str:
    """The most frequent ones, with their shares."""
    everything = sum(counts.values())
    most = sorted(counts.items(), key=lambda item: -item[1])[:_MOST]
    return ", ".join(f"{name}: {percent(count / everything)}" for name, count in most)
