"""Trees of drafts beside chains and beside none: accepted drafts a round, tokens a second, sizes chosen.

    python -m bench.decode.trees [--prompts FILE]... [--weights packed --weights bf16] [--policy NAME]...
        [--every N] [--most-prompts N] [--tokens 128] [--rounds 1]

By default the fitted block's chains, its trees as measured time sizes them, and trees of fixed sizes,
on the project's own prompts, all in one interleaved run. Texts end where the model ends them. What rows take
is saved too, since the sizes follow from it. Exits with 1 if any tokens differ from plain decoding's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from specee.policies import Latency

from .. import options as common
from ..progress import Meter
from . import contest_task
from .contest_task import Task
from .interleaved import Bench, Contest

SIZES = (2, 4, 8, 16, 32)
"""Nodes of trees that are always as large."""
POLICIES = (
    "drafter",
    "drafter-tree",
    *(f"drafter-tree:measured=false,nodes={nodes}" for nodes in SIZES),
    "auto",
)


def measure(task: Task, policies: Sequence[str] = POLICIES) -> dict[str, Any]:
    """Compare and sum up. Raises ConfigurationError for what is not allowed."""
    checkpoint = task.opened(policies)
    kinds = task.kinds(checkpoint)
    texts = task.texts(checkpoint, task.files)
    planned = Bench(None, task.tokens, ends=True)
    meter = Meter(len(kinds) * planned.work(len(texts), len(policies)), "token")
    parts = []
    try:
        for weights in kinds:
            model = task.loaded(weights)
            bench = Bench(model, task.tokens, ends=True)
            bench.warm_up(texts[0], policies)
            contest = bench.compare(texts, policies, meter)
            parts.append(part_of(contest, weights, model.latency.table(), checkpoint.config.num_layers))
            meter.say(weights)
    finally:
        meter.close()
    return {
        "what": "trees of drafts beside chains and plain decoding, greedy decoding, batch 1, interleaved",
        **task.facts(checkpoint),
        "parts": parts,
    }


def part_of(contest: Contest, weights: str, latency: Latency, layers: int) -> dict[str, Any]:
    """What is reported of one kind of weights.

    ``row_ms``: milliseconds of a whole pass by rows, as the latency table had it at the end. Per policy
    ``drafted_per_round`` and ``accepted_per_round``, rounds without drafts included.
    """
    seconds = [latency.layers_seconds(layers, rows) + latency.head_seconds(rows) for rows in latency.rows]
    part = contest.part(weights, weights=weights)
    for policy, figures in part["policies"].items():
        total = contest.total(policy)
        rounds = max(1, total.sources.total())
        figures["drafted_per_round"] = total.drafted / rounds
        figures["accepted_per_round"] = total.accepted / rounds
    return {**part, "row_ms": dict(zip(latency.rows, [1e3 * one for one in seconds], strict=True))}


def main() -> None:
    """Run and save."""
    options = common.parse(contest_task.parser(__doc__, POLICIES))
    result = measure(contest_task.task(options), options.policy or POLICIES)
    contest_task.finish(options, "trees", result)


if __name__ == "__main__":
    main()
