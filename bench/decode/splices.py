"""How soon policies follow a text that changes: traces of two planted models, spliced, without a model.

    python -m bench.decode.splices [--k 6 --k 20] [--weights packed --weights bf16] [--policy NAME]...
        [--factor F] [--work FOLDER] [--every N] [--most-prompts N] [--tokens 128]

The models (see ``planted_models.py``) decode prompts plainly, without the chat template, while every layer's
draft is recorded. Each text of one is then continued, from its middle, as a text of the other, for every pair
of ``k`` in either order; what is spliced is replayed at the prices measured on the first model. Plans are
judged by what they are worth as static settings on the text that follows, over its best one; where that is
not far from plain decoding, to draft nothing is good too. A replay asks before every round, an engine before
a few: where rounds are short it follows a little later. What plans take is real time, in warm caches.

Planted models write nothing of sense, and many of their texts end up repeating themselves. Then layers far
below k may be right as well, so texts whose best static setting is at the planted layer are counted apart.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import specee
from specee.errors import ConfigurationError
from specee.replay import Recovery, Replay, Trace, followed, recoveries, replay, splice
from specee.replay.record import recording
from specee.replay.splice import GOOD, SOON

from .. import options as common
from ..progress import Meter
from . import planted_models, planted_task
from .contest_task import Task

POLICIES = ("del", "del:faithful=true")
KS = (6, 20)
NEAR = 2
"""Layers that a text's best static setting may be off k to count as planted."""


def measure(
    task: Task,
    *,
    work: Path,
    ks: Sequence[int] = KS,
    policies: Sequence[str] = POLICIES,
    factor: float = planted_models.FACTOR,
) -> dict[str, Any]:
    """Record, splice, replay. Raises ConfigurationError for what is not allowed."""
    task = replace(task, fitted=False)  # replays have nothing else to draft with
    checkpoint = task.opened(policies)
    if len(set(ks)) < 2:
        raise ConfigurationError(f"k={list(ks)}: a text that changes needs two different ones or more")
    for k in ks:
        planted_models.check(checkpoint, k)
    texts, kinds = task.texts(checkpoint, task.files, raw=True), task.kinds(checkpoint)
    meter = Meter(len(kinds) * len(ks) * len(texts) * task.tokens, "token")
    traces: dict[tuple[str, int], Trace] = {}
    try:
        for k in ks:
            path = planted_models.planted(task.model, k, work, factor=factor)
            for weights in kinds:
                traces[weights, k] = _recorded(task, path, f"k={k}", weights, texts, meter)
    finally:
        meter.close()
    return {
        "what": "traces of planted models, spliced in the middle of each text, replayed",
        **task.facts(checkpoint),
        "factor": factor,
        "soon": SOON,
        "good": GOOD,
        "parts": [
            part(traces[weights, one], traces[weights, other], other, weights, policies)
            for weights in kinds
            for one, other in permutations(ks, 2)
        ],
    }


def _recorded(
    task: Task, path: Path, name: str, weights: str, texts: Sequence[Sequence[int]], meter: Meter
) -> Trace:
    model = specee.load(path, weights=weights, backend="cpu", threads=task.threads)  # type: ignore[arg-type]
    latency, found = model.latency.table(), []
    for text in recording(model.backend, texts, task.tokens, kv_dtype=model.kv_dtype):
        found.append(text)
        meter.advance(text.generated)
    meter.say(f"{name} {weights}")
    return Trace(name, model.config.num_layers, latency, tuple(found))


def part(first: Trace, second: Trace, k: int, weights: str, policies: Sequence[str]) -> dict[str, Any]:
    """Every policy on the texts of ``first`` that go on as those of ``second``, planted at ``k``."""
    spliced = splice(first, second, max(1, min(text.generated for text in first.texts) // 2))
    found = {}
    for policy in policies:
        run = replay(policy, spliced.trace)
        texts = recoveries(run, spliced)
        planted = [one for one in texts if one.best.layer and abs(one.best.layer - k) <= NEAR]
        found[policy] = {"texts": sums(texts), "planted": sums(planted), **_taken(run)}
    return {"label": f"{first.name} then {second.name} {weights}", "weights": weights, "policies": found}


def sums(found: Sequence[Recovery]) -> dict[str, Any]:
    """Of :class:`.Followed`; the best static setting's speed over plain decoding is a median over texts.

    None where there is no text, no good plan, or no round left after ``SOON``.
    """
    all_of_them = followed(found)
    reached, later = all_of_them.reached, all_of_them.later
    return {
        "count": all_of_them.texts,
        "best_static": statistics.median(one.best.ratio for one in found) if found else None,
        "plain_good": all_of_them.plain,
        "rounds": {"median": statistics.median(reached), "max": reached[-1]} if reached else None,
        "soon": all_of_them.soon,
        "short": all_of_them.short,
        "never": all_of_them.never,
        "later_good": statistics.mean(value >= GOOD for value in later) if later else None,
        "later_value": statistics.mean(later) if later else None,
    }


def _taken(run: Replay) -> dict[str, Any]:
    median, most = run.replanning
    return {
        "over_plain": run.ratio,
        "shadow": run.shadow_share,
        "plan_us": {"median": 1e6 * median, "p90": 1e6 * most},
        "made_anew": sum(entry.anew for entry in run.rounds) / len(run.rounds),
        "round_us": 1e6 * run.deciding,
    }


if __name__ == "__main__":
    planted_task.main(__doc__, "splices", POLICIES, measure, KS, common.finish)
