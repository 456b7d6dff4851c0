"""Whether policies find a planted exit layer, and how near they come to the best static setting of a sweep.

    python -m bench.decode.planted [--k 6 --k 12 --k 20] [--weights packed --weights bf16] [--policy NAME]...
        [--factor F] [--work FOLDER] [--every N] [--most-prompts N] [--tokens 128] [--rounds 1]

In a planted model (see ``planted_models.py``) the layers beyond k barely act. The static settings of
``layerskip`` are swept in two stages (``static_sweep.py``): all of them on a few of the prompts and with
fewer tokens; then the best six of them, the median and the worst in turns with plain decoding and the
policies, by default DEL and DEL as published. Prompts are taken without the chat template, and no text ends
early: planted models write nothing of sense. Exits with 1 if any tokens differ from plain decoding's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import specee

from ..progress import Meter
from . import planted_models, planted_task, static_sweep
from .agreement import agreement
from .contest_task import Task
from .interleaved import Bench, Contest
from .lossless import PLAIN
from .planted_task import KS
from .static_sweep import Ranking, grid

POLICIES = ("del", "del:faithful=true")


def measure(
    task: Task,
    *,
    work: Path,
    ks: Sequence[int] = KS,
    policies: Sequence[str] = POLICIES,
    factor: float = planted_models.FACTOR,
) -> dict[str, Any]:
    """Plant, sweep, compare. Raises ConfigurationError for what is not allowed."""
    checkpoint = task.opened(policies)
    for k in ks:
        planted_models.check(checkpoint, k)
    policies = [policy for policy in dict.fromkeys(policies) if policy != PLAIN]
    texts, kinds = task.texts(checkpoint, task.files, raw=True), task.kinds(checkpoint)
    planned = Bench(None, task.tokens)
    fully = planned.work(len(texts), len(policies) + static_sweep.BEST + 2)
    few = len(static_sweep.few(texts))
    swept = [static_sweep.short(planned).work(few, len(grid(k, checkpoint.config.num_layers))) for k in ks]
    meter = Meter(len(kinds) * (len(ks) * fully + sum(swept)), "token")
    parts = []
    try:
        for k in ks:
            path = planted_models.planted(task.model, k, work, factor=factor)
            for weights in kinds:
                model = specee.load(path, weights=weights, backend="cpu", threads=task.threads)  # type: ignore[arg-type]
                part = one_model(Bench(model, task.tokens), k, weights, texts, policies, meter)
                meter.say(f"{part['label']}: best static {part['static']['best']}")
                parts.append(part)
    finally:
        meter.close()
    return {
        "what": "planted models: policies beside static settings, greedy decoding, batch 1, interleaved",
        **task.facts(checkpoint),
        "factor": factor,
        "sweep": {"new_tokens": min(task.tokens, static_sweep.TOKENS), "prompts": few},
        "parts": parts,
    }


def one_model(
    bench: Bench, k: int, weights: str, texts: list[list[int]], policies: Sequence[str], meter: Meter
) -> dict[str, Any]:
    """Both stages on a planted model."""
    bench.warm_up(texts[0], policies)
    sweep = static_sweep.swept(bench, texts, grid(k, bench.model.config.num_layers), meter)
    ranking = static_sweep.ranked(sweep)
    contest = bench.compare(texts, [*policies, *ranking.chosen], meter)
    agreeing = agreement(bench.model, texts, bench.tokens)
    part = contest.part(f"k={k} {weights}", k=k, weights=weights, **summary(contest, ranking, policies))
    return {
        **part,
        "agreement": agreeing[k],
        "agreement_by_layer": agreeing,
        "swept": {policy: sweep.ratio(policy)["total"] for policy in ranking.settings},
        "differing": {**sweep.differing, **contest.differing},
    }


def summary(contest: Contest, ranking: Ranking, policies: Sequence[str]) -> dict[str, Any]:
    """Static settings by name, and every policy's speed as a share of the best one's."""
    best = max(ranking.chosen, key=lambda policy: contest.total(policy).speed)
    return {
        "static": {"best": best, "median": ranking.median, "worst": ranking.worst},
        "share_of_best": {policy: contest.ratio(policy, best) for policy in policies},
        "request_share_of_best": {
            policy: contest.ratio(policy, best, seconds="request") for policy in policies
        },
    }


if __name__ == "__main__":
    planted_task.main(__doc__, "planted", POLICIES, measure)
