"""Tables of what speculation does: what was accepted, whether tokens stay the same, what Python costs."""

from __future__ import annotations

from typing import Any

from .numbers import megabytes, percent, percent_ranged, ranged, seconds, short
from .table import Table

_PARTS = {
    "draft": "draft",
    "draft_head": "draft head",
    "verify": "verify",
    "head": "head",
    "shadow": "shadow",
    "python": "Python",
}
_MOST_DIFFERENCES = 20


def drafts(result: dict[str, Any]) -> list[Table]:
    """Of contenders of ours in a speed run; none if nobody drafted."""
    ours = {name: found for name, found in result["contenders"].items() if "shares" in found}
    if not any(found["drafted"] for found in ours.values()):
        return []
    rows = [
        (
            name,
            ranged(found["decode_to_first"], "x"),
            percent(found["acceptance"]) if "acceptance" in found else "",
            short(found["tokens_per_round"]),
            *(f"{found['shares'].get(part, 0.0):.1%}" for part in _PARTS),
            f"{found['same_text_turns']} of {result['turns']}",
        )
        for name, found in ours.items()
    ]
    first = next(iter(result["contenders"]))
    header = ("contender", f"to {first}", "accepted", "tokens/round", *_PARTS.values(), "same text")
    note = (
        "shares of the time after the first token, medians over turns; "
        "same text: turns with the tokens of the first contender"
    )
    return [Table("Drafts, and where the time goes", header, rows, note)]


def lossless(result: dict[str, Any]) -> list[Table]:
    """Every combination, then the first of the differences."""
    found = result["combinations"]
    rows = [
        (
            *_combination(one),
            str(one["prompts"]),
            f"{one['tokens']:,}",
            str(len(one["differing"])),
            short(one["decode_tokens_s"]),
            percent(one["acceptance"]) if "acceptance" in one else "",
            short(one["tokens_per_round"]),
        )
        for one in found
    ]
    header = (
        *("weights", "mode", "batch", "policy", "prompts", "tokens", "differing prompts", "tokens/s"),
        *("accepted", "tokens/round"),
    )
    left = result["combinations_left"]
    note = f"{left} combinations are not finished" if left else ""
    tables = [Table("Tokens beside those of plain decoding", header, rows, note, names=4)]
    differences = [
        (*_combination(one), *(str(difference[key]) for key in ("prompt", "position", "plain", "got")))
        for one in found
        for difference in one["differing"]
    ]
    if differences:
        parting = (
            "weights",
            "mode",
            "batch",
            "policy",
            "prompt",
            "at token",
            "plain decoding",
            "this policy",
        )
        shown = differences[:_MOST_DIFFERENCES]
        note = f"the first {len(shown)} of {len(differences)}" if len(shown) < len(differences) else ""
        tables.append(Table("Where texts part", parting, shown, note, names=4))
    return tables


def _combination(one: dict[str, Any]) -> tuple[str, str, str, str]:
    return one["weights"], one["mode"], str(one["batch"]), one["policy"]


def overhead(result: dict[str, Any]) -> list[Table]:
    """Python's time for each policy, and whether it keeps to the goal."""
    goal, rate = result["goal"], result["rate"]
    rows = [
        (
            policy,
            short(found["tokens_per_step"]),
            ranged(found["python_us_per_step"], " µs"),
            ranged(found["python_us_per_token"], " µs"),
            percent_ranged(found["share_of_decode"]),
            f"{found['share_at_rate']['median']:.1%}",
            "yes" if found["share_at_rate"]["median"] <= goal else "no",
        )
        for policy, found in result["policies"].items()
    ]
    header = (
        *("policy", "tokens/step", "Python a step", "Python a token", "of decoding"),
        *(f"at {rate} tokens/s", f"within {goal:.0%}"),
    )
    title = f"Time outside native calls: {result['weights']}, {result['threads']} threads, {result['clock']}"
    return [Table(title, header, rows, f"median (min to max) over {result['runs']} runs of each policy")]


def head_stages(result: dict[str, Any]) -> list[Table]:
    """What the two stages of the head's argmax save, by weights and policy."""
    rows = [
        (
            kind,
            policy,
            f"{megabytes(part['coarse_bytes'])} of {megabytes(part['head_bytes'])}",
            seconds(part["made_s"]),
            f"{found['head_read_again']:.1%}",
            ranged(found["whole"]),
            ranged(found["two_stages"]),
            ranged(found["ratio"], "x"),
            f"{found['all']:.3f}x",
        )
        for kind, part in result["weights"].items()
        for policy, found in part["policies"].items()
    ]
    header = (
        *(
            "weights",
            "policy",
            "coarse copy",
            "made in",
            "head read again",
            "whole head, tokens/s",
            "two stages",
        ),
        *("prompt by prompt", "all together"),
    )
    what = f"{result['new_tokens']} new tokens, {result['threads']} threads"
    return [Table(f"The head's argmax in two stages: {what}", header, rows, "median (min to max)", names=2)]


def drafters(result: dict[str, Any]) -> list[Table]:
    """How often fitted blocks are right, by what they were trained on."""
    rows = [
        (
            found["file"],
            f"{found['trained_tokens']:,}" if found["trained_tokens"] else "unknown",
            f"{found['vocabulary']:,} ({percent(found['coverage'])})",
            *(percent(share) for share in found["agreement"]),
        )
        for found in result["drafters"]
    ]
    chain = max((len(found["agreement"]) for found in result["drafters"]), default=0)
    header = ("file", "trained on", "vocabulary", *(f"draft {step}" for step in range(1, chain + 1)))
    title = (
        f"Drafts that are right: {result['texts']} texts, {result['tokens']:,} tokens, {result['weights']}"
    )
    return [Table(title, header, rows, "a token counts as often as it was trained on")] if rows else []
