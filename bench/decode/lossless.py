"""Whether every policy gives the tokens of plain decoding, over weights, ways of sampling and batches.

    python -m bench.decode.lossless [--prompts FILE]... [--weights packed]... [--batch 4]...
        [--policy NAME]... [--greedy | --sampled] [--tokens 128] [--state FILE] [--minutes M]

Plain decoding of the same backend is computed once for each weights and mode, eight prompts together: rows do
not depend on their batch, which is part of what is checked. Texts end where the checkpoint says. With
``--state`` a run that was cut short, or whose ``--minutes`` are over, goes on where it was. Exits with 1 if
any token differs, with 3 if nothing differs and the time was too short for all of it.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import specee
from specee.errors import ConfigurationError
from specee.models.checkpoint import Checkpoint, open_checkpoint

from .. import machine, prompts
from .. import options as common
from ..progress import Meter
from .batches import MODES, chunks, continued
from .contenders import WEIGHTS
from .policy_check import check_policies, packaged_view
from .resume import Settings, State, Tokens
from .tally import Tally

PLAIN = "autoregressive"
PLAIN_BATCH = 8
BATCHES = (1, 4)
DIFFERENT, UNFINISHED = 1, 3


@dataclass(frozen=True)
class Combination:
    """One line of the result."""

    weights: str
    mode: str
    batch: int
    policy: str


@dataclass(frozen=True)
class Task:
    """What all combinations have in common."""

    texts: list[list[int]]
    tokens: int
    settings: Settings  # by which a state file knows the task again
    state: State
    end: float  # of time.monotonic()

    def plain(self, weights: str, mode: str) -> Tokens:
        """Plain decoding's tokens, of as many prompts as were done."""
        return self.state.plain({**self.settings, "weights": weights, "mode": mode, **MODES[mode]})

    def tally(self, one: Combination) -> Tally:
        """What is known of a combination."""
        return self.state.tally({**self.settings, **asdict(one), **MODES[one.mode]})

    def left(self, one: Combination) -> int:
        """Prompts that have not been compared."""
        return len(self.texts) - self.tally(one).prompts

    def chunks(self, begin: int, size: int) -> Iterator[range]:
        """Prompts from ``begin`` in batches, while there is time."""
        for chosen in chunks(begin, len(self.texts), size):
            if time.monotonic() >= self.end:
                return
            yield chosen
            self.state.save(now=False)


def default_policies(layers: int, *, drafter: bool = False, exits: bool = False) -> list[str]:
    """Every policy that drafts; untrained layers draft best at nine tenths of the depth and over."""
    exit_layer = max(1, min(layers - 1, round(0.9 * layers)))
    return [
        f"layerskip:exit_layer={exit_layer},speculation_length=2",
        f"layerskip-adaptive:exit_layer={exit_layer}",
        f"threshold:exit_layer={exit_layer}",
        "prompt-lookup",
        "del",
        "auto",
        *(["drafter", "drafter-tree"] if drafter else []),
        *(["specee", "specee-tree"] if exits else []),
    ]


def measure(
    *,
    weights: Sequence[str] = ("auto",),
    modes: Sequence[str] = tuple(MODES),
    batches: Sequence[int] = BATCHES,
    policies: Sequence[str] | None = None,
    model: str | None = None,
    backend: str = "cpu",
    threads: int,
    tokens: int = 128,
    files: list[Path] | None = None,
    most_prompts: int | None = None,
    state: Path | None = None,
    minutes: float | None = None,
) -> dict[str, Any]:
    """Compare and sum up. Raises ConfigurationError for a policy or number that is not allowed."""
    if tokens < 2 or any(batch < 1 for batch in batches):
        raise ConfigurationError(
            f"tokens={tokens}, batches {list(batches)}: allowed are 2 or more, 1 or more"
        )
    checkpoint = open_checkpoint(model)
    if checkpoint.tokenizer is None:
        raise ConfigurationError(f"{checkpoint.source} has no tokenizer: the prompts are texts")
    layers = checkpoint.config.num_layers
    view = packaged_view(checkpoint)
    able = default_policies(layers, drafter=view.drafter is not None, exits=view.exits is not None)
    policies = list(dict.fromkeys(policies or able))
    check_policies(policies, checkpoint)
    texts = prompts.encoded(checkpoint.tokenizer, files)[:most_prompts]
    settings = _settings(checkpoint, texts, tokens, backend, threads)
    end = float("inf") if minutes is None else time.monotonic() + 60 * minutes
    task = Task(texts, tokens, settings, State(state), end)
    kinds = dict.fromkeys(checkpoint.natural_weights if name == "auto" else name for name in weights)
    combinations = [
        Combination(*one) for one in itertools.product(kinds, modes, dict.fromkeys(batches), policies)
    ]
    try:
        _compare_all(task, combinations, model)
    finally:
        task.state.save()
    done = [one for one in combinations if task.tally(one).prompts]
    return {
        "what": "tokens beside those of plain decoding",
        **settings,
        "prompt_files": [path.name for path in files or [prompts.OWN]],
        "modes": {mode: MODES[mode] for mode in modes},
        "combinations": [{**asdict(one), **task.tally(one).figures()} for one in done],
        "combinations_left": sum(task.left(one) > 0 for one in combinations),
    }


def _settings(
    checkpoint: Checkpoint, texts: list[list[int]], tokens: int, backend: str, threads: int
) -> Settings:
    return {
        "model": Path(checkpoint.source).name,
        "prompts": len(texts),
        "prompt_ids_sha256": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
        "new_tokens": tokens,
        "eos": sorted(checkpoint.eos_token_ids),
        "backend": backend,
        "threads": threads,
        "instruction_set": machine.instruction_set(),  # another one rounds otherwise
    }


def _compare_all(task: Task, combinations: Sequence[Combination], source: str | None) -> None:
    """Everything that is left; a model is loaded only if something is left for it."""
    open_ones = [one for one in combinations if task.left(one)]
    references = {(one.weights, one.mode) for one in open_ones}
    meter = Meter(
        sum(map(task.left, open_ones)) + sum(len(task.texts) - len(task.plain(*key)) for key in references),
        "prompt",
    )
    try:
        for weights, group in itertools.groupby(open_ones, lambda one: one.weights):
            backend, threads = task.settings["backend"], task.settings["threads"]
            model = specee.load(source, weights=weights, backend=backend, threads=threads)
            for one in group:
                _compare(task, one, model, meter)
    finally:
        meter.close()


def _compare(task: Task, one: Combination, model: Any, meter: Meter) -> None:
    plain, tally = task.plain(one.weights, one.mode), task.tally(one)
    for chosen in task.chunks(len(plain), PLAIN_BATCH):
        result = continued(model, task.texts, chosen, one.mode, PLAIN, task.tokens)
        plain += [list(row) for row in result.tokens]
        meter.advance(len(chosen))
    for chosen in task.chunks(tally.prompts, one.batch):
        result = continued(model, task.texts, chosen, one.mode, one.policy, task.tokens)
        tally.add(chosen, plain, result)
        meter.advance(len(chosen))
    if not task.left(one):
        task.state.save()
        meter.say(
            f"{one.weights} {one.mode} batch {one.batch} {one.policy}: {tally.tokens} tokens, "
            f"{len(tally.differing)} of {tally.prompts} prompts differ"
        )


def verdict(result: dict[str, Any]) -> tuple[int, str]:
    """Exit code, and what to say."""
    wrong = [one for one in result["combinations"] if one["differing"]]
    if wrong:
        return DIFFERENT, f"not lossless: tokens differ in {len(wrong)} combinations"
    if left := result["combinations_left"]:
        return UNFINISHED, f"{left} combinations are not finished: run again with the same --state"
    return 0, "every token is that of plain decoding"


def main() -> None:
    """Run, save, judge."""
    parser = common.parser(__doc__, prompts=True)
    again = "may be given again; default: "
    parser.add_argument("--weights", action="append", choices=WEIGHTS, help=again + "auto")
    parser.add_argument("--batch", action="append", type=int, help=again + " ".join(map(str, BATCHES)))
    parser.add_argument("--policy", action="append", help=again + "every policy that drafts")
    for mode in MODES:
        parser.add_argument(
            f"--{mode}", action="append_const", dest="mode", const=mode, help="default: both modes"
        )
    parser.add_argument("--backend", default="cpu", choices=("cpu", "reference"))
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--most-prompts", type=int, help="take the first so many of the prompts")
    parser.add_argument("--state", type=Path, help="file to go on from, and to write")
    parser.add_argument("--minutes", type=float, help="stop after so long")
    options: argparse.Namespace = common.parse(parser)
    result = measure(
        weights=options.weights or ["auto"],
        modes=options.mode or tuple(MODES),
        batches=options.batch or BATCHES,
        policies=options.policy,
        model=options.model,
        backend=options.backend,
        threads=options.threads,
        tokens=options.tokens,
        files=options.prompts,
        most_prompts=options.most_prompts,
        state=options.state,
        minutes=options.minutes,
    )
    common.finish(options, "lossless", result)
    code, text = verdict(result)
    print(text, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
