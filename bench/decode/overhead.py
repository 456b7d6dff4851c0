"""What Python costs: the share of decoding that is spent outside native calls, for every policy.

    python -m bench.decode.overhead [--weights packed] [--policy NAME]... [--rounds 3] [--cpu-time]

Policies take turns on each prompt. The first step, which computes the prompt, is left out. A share depends on
how fast the engine is, so Python's time for a token is also given as a share of decoding at 300 tokens/s;
the goal is at most 3 % of that. Turns that fit into 30 ms are taken in one native call; where plain decoding
is slower than that rate, all are given as much longer, so that a call has as many turns as on a machine that
is as fast. Stopwatches around native calls cost time of their own, which is taken off. What else runs on the
machine slows Python more than the engine; ``--cpu-time`` counts the processor time of the calling thread
instead, and so leaves out what others took.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import specee
from specee.engine import BURST
from specee.errors import ConfigurationError
from specee.policies import Policy

from .. import options as common
from .. import prompts
from ..progress import progress
from ..spread import spread
from .contenders import WEIGHTS
from .lossless import PLAIN, default_policies
from .native_clock import NativeClock, watched

RATE = 300  # tokens/s, what the default model decodes at on two cores
GOAL = 0.03
PROMPTS = 4


@dataclass(frozen=True)
class Spent:
    """One run, its first step aside: ``native`` seconds are part of ``total``."""

    steps: int
    tokens: int
    total: float
    native: float

    @property
    def python(self) -> float:
        """Seconds outside native calls."""
        return self.total - self.native


def once(
    model: Any,
    prompt: list[int],
    policy: str | Policy,
    tokens: int,
    clock: NativeClock,
    burst: float = BURST,
) -> Spent:
    """Continue a prompt by ``tokens``, greedily; texts do not end before."""
    options = {"max_new_tokens": tokens, "do_sample": False, "eos_token_id": []}
    generation = model.start(prompt, policy=policy, burst=burst, **options)
    steps = iter(generation)
    next(steps)
    clock.reset()
    made = sum([len(step[0]) for step in steps])
    total = clock.total
    return Spent(generation.steps - 1, made, total, clock.native)


def scaled_burst(model: Any, prompt: list[int], tokens: int) -> float:
    """Seconds in which plain decoding gives as many tokens here as it would in the loop's own at the rate."""
    rates = []
    for _ in range(3):
        generation = model.start(
            prompt, policy=PLAIN, max_new_tokens=tokens, do_sample=False, eos_token_id=[]
        )
        made = sum([len(step[0]) for step in generation]) - 1
        rates.append(made / generation.timing.decode)
    return BURST * RATE / statistics.median(rates)


def figures(found: Sequence[Spent]) -> dict[str, Any]:
    """What is reported of one policy."""
    per_token = [one.python / one.tokens for one in found]
    return {
        "steps": sum(one.steps for one in found),
        "tokens": sum(one.tokens for one in found),
        "tokens_per_step": sum(one.tokens for one in found) / sum(one.steps for one in found),
        "python_us_per_step": spread([1e6 * one.python / one.steps for one in found]),
        "python_us_per_token": spread([1e6 * seconds for seconds in per_token]),
        "share_of_decode": spread([one.python / one.total for one in found]),
        "share_at_rate": spread([RATE * seconds for seconds in per_token]),
    }


def measure(
    policies: Sequence[str] | None = None,
    *,
    weights: str = "auto",
    model: str | None = None,
    threads: int,
    rounds: int = 3,
    tokens: int = 64,
    files: list[Path] | None = None,
    most_prompts: int | None = PROMPTS,
    cpu_time: bool = False,
) -> dict[str, Any]:
    """Run and sum up. Raises ConfigurationError for a policy or number that is not allowed."""
    if tokens < 2 or rounds < 1:
        raise ConfigurationError(
            f"tokens={tokens}, rounds={rounds}: a step after the first needs 2 tokens, and 1 round or more"
        )
    loaded = specee.load(model, weights=weights, backend="cpu", threads=threads)  # type: ignore[arg-type]
    layers = loaded.config.num_layers
    heads = loaded.heads
    able = default_policies(layers, drafter=heads.drafter is not None, exits=heads.exits is not None)
    chosen = list(dict.fromkeys(policies or [PLAIN, *able]))
    for policy in chosen:
        loaded.check_policy(policy)
    texts = prompts.encoded(loaded.tokenizer, files)[:most_prompts]
    found: dict[str, list[Spent]] = {policy: [] for policy in chosen}
    with watched(loaded.backend, time.thread_time if cpu_time else time.perf_counter) as clock:
        burst = scaled_burst(loaded, texts[0], tokens)
        for policy in chosen:
            once(loaded, texts[0], policy, min(tokens, 8), clock)  # not counted
        jobs = texts * rounds
        for turn, text in enumerate(progress(jobs, "turn", total=len(jobs))):
            for policy in chosen if turn % 2 == 0 else chosen[::-1]:
                found[policy].append(once(loaded, text, policy, tokens, clock, burst))
    return {
        "what": "time outside native calls, greedy decoding, batch 1",
        "weights": loaded.backend.weights,
        "threads": threads,
        "clock": "processor time" if cpu_time else "wall time",
        "prompts": len(texts),
        "new_tokens": tokens,
        "rounds": rounds,
        "runs": len(jobs),
        "rate": RATE,
        "goal": GOAL,
        "burst_ms": 1e3 * burst,
        "policies": {policy: figures(runs) for policy, runs in found.items()},
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument("--weights", default="auto", choices=WEIGHTS)
    parser.add_argument(
        "--policy", action="append", help="may be given again; default: plain decoding and all that draft"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--most-prompts", type=int, default=PROMPTS, help="default: %(default)s")
    parser.add_argument("--cpu-time", action="store_true", help="of the calling thread, not wall time")
    options = common.parse(parser)
    result = measure(
        options.policy,
        weights=options.weights,
        model=options.model,
        threads=options.threads,
        rounds=options.rounds,
        tokens=options.tokens,
        files=options.prompts,
        most_prompts=options.most_prompts,
        cpu_time=options.cpu_time,
    )
    common.finish(options, "overhead", result)


if __name__ == "__main__":
    main()
