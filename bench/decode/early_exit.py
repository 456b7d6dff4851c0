"""Approximate decoding by exit predictors: where tokens leave, what that gains, and what it costs.

    python -m bench.decode.early_exit [--weights packed --weights bf16] [--speculator FILE] [--policy NAME]...
        [--prompts FILE]... [--every N] [--most-prompts N] [--tokens 64]

Policies take turns with plain decoding, greedily, and texts do not end early; by default thresholds from 0.3
to 0.95 with scheduled layers, and with all of them. Of every token it is told whether it is the full model's
most likely one after the same text. Then each threshold reads the texts of plain decoding, whose next token
it is told whatever it would say: their perplexity by the layers where it leaves, with keys and values of all
layers, and in fp32 without those of the layers that were skipped, as SpecEE's released code leaves them out
(``missing_kv.py``). Last, what a checked layer takes, and scores of candidates beside the whole head.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import specee
from specee.backends.protocol import ExitCall
from specee.errors import ConfigurationError
from specee.policies import LeaveEarly, Observation, Outcome, Round, SequenceView, make_policy
from specee.types import Sampling

from .. import options as common
from ..progress import Meter
from ..spread import spread
from . import contest_task
from .contest_task import Task
from .missing_kv import MissingKv
from .perplexity import surprise

TOKENS = 64
_BLOCK = 16  # rows of a packed matrix that lie together
THRESHOLDS = (0.3, 0.5, 0.7, 0.9, 0.95)
SETTINGS = tuple(
    f"specee:mode=approximate,layers={layers},threshold={threshold}"
    for layers in ("scheduled", "all")
    for threshold in THRESHOLDS
)
_REPEATS = 50


@dataclass(frozen=True)
class Run:
    """One text: new tokens, seconds after the first step, layers of exit, and which are the full model's."""

    tokens: list[int]
    seconds: float
    exits: list[int]
    agreed: list[bool]


class Reader:
    """One loaded model."""

    def __init__(self, model: specee.Model, tokens: int) -> None:
        self.model, self.backend, self.tokens = model, model.backend, tokens
        self.layers = model.config.num_layers

    def decode(self, prompt: list[int], policy: str) -> Run:
        """Greedily, and what the full model would have said."""
        generation = self.model.start(
            prompt, policy=policy, max_new_tokens=self.tokens, do_sample=False, eos_token_id=[]
        )
        for _ in generation:
            pass
        statistics, generated = generation.statistics, generation.sequences[0].generated
        exits = [layer for entry in statistics.rounds() for layer in entry.exits]
        full = self.most_likely(prompt, generated)
        agreed = [a == b for a, b in zip(full, generated, strict=True)]
        return Run(list(generated), statistics.seconds, exits or [self.layers] * len(generated), agreed)

    def most_likely(self, prompt: list[int], generated: Sequence[int]) -> list[int]:
        """The full model's token at each place."""
        state = self.backend.sequence(len(prompt) + len(generated), self.model.kv_dtype)
        slots = list(state.append([*prompt, *generated[:-1]]))[len(prompt) - 1 :]
        self.backend.advance([(state, slots)], self.layers)
        return self.backend.argmax([(state, slots)]).tolist()

    def read(self, prompt: list[int], text: Sequence[int], policy: str) -> tuple[list[int], float]:
        """Where each token of a given text is left at, and the text's surprise by those layers, in nats."""
        heads, chosen = self.model.heads, make_policy(policy)
        chosen.begin(heads.view)
        assert heads.drafter is not None
        assert heads.exits is not None
        state = self.backend.sequence(len(prompt) + len(text), self.model.kv_dtype)
        state.keep(heads.drafter.layers, 512)
        state.append(prompt)
        self.backend.advance([(state, range(len(prompt) - 1))], self.layers)
        column = heads.drafter.column(state.capacity, "fp16")
        exits, total = [], 0.0
        for token in text:
            slot = state.length - 1
            view = SequenceView(0, state.length, state.frontier, len(text) - len(exits))
            plan = chosen.plan(Observation((view,)))
            assert isinstance(plan, LeaveEarly)
            leave = plan.leaves[0]
            layers = () if slot - state.frontier[-1] >= leave.waiting else leave.layers
            call = ExitCall(state, column, slot, layers, leave.threshold, Sampling())
            (left,) = self.backend.leave_early(
                heads.drafter, heads.exits, [call], heads.drafter_head, confirm=True
            ).exits
            total += surprise(self.backend.logits([(state, [slot])]), [token])
            exits.append(left.layer)
            chosen.observe(Outcome((Round(0, (token,), exits=(left.layer,)),)))
            state.append([token])
        return exits, total


def measure(task: Task, policies: Sequence[str], speculator: Path | None = None) -> dict[str, Any]:
    """All of it, for each format of the weights. Raises ConfigurationError."""
    checkpoint = task.opened(())
    texts = task.texts(checkpoint, task.files)
    kinds = task.kinds(checkpoint)
    meter = Meter(len(kinds) * len(texts) * (len(policies) + 1), "text")
    missing = MissingKv(checkpoint, task.threads)
    parts = []
    try:
        for kind in kinds:
            model = specee.load(
                task.model, weights=kind, backend="cpu", threads=task.threads, speculator=speculator
            )
            if model.heads.exits is None:
                raise ConfigurationError(
                    f"{checkpoint.source} has no exit predictors: name a speculator file that has some"
                )
            parts.append(_part(Reader(model, task.tokens), kind, texts, policies, missing, meter))
            meter.say(kind)
    finally:
        meter.close()
    return {
        "what": "approximate decoding by exit predictors, greedy, batch 1, interleaved",
        **task.facts(checkpoint),
        "parts": parts,
    }


def _part(
    reader: Reader,
    kind: str,
    texts: list[list[int]],
    policies: Sequence[str],
    missing: MissingKv,
    meter: Meter,
) -> dict[str, Any]:
    reader.decode(texts[0], policies[0])  # warm
    runs: dict[str, list[Run]] = {policy: [] for policy in ("autoregressive", *policies)}
    nats: dict[str, list[tuple[float, float]]] = {policy: [] for policy in policies}
    plain_nats: list[tuple[float, float]] = []
    for index, text in enumerate(texts):
        order = list(runs)[:: 1 if index % 2 else -1]
        for policy in order:
            runs[policy].append(reader.decode(text, policy))
            meter.advance(1)
        plain = runs["autoregressive"][-1].tokens
        full = [reader.layers] * len(plain)
        plain_nats.append((_full_surprise(reader, text, plain), missing.surprise(text, plain, full)))
        for policy in policies:
            exits, exact = reader.read(text, plain, policy)
            nats[policy].append((exact, missing.surprise(text, plain, exits)))
    count = sum(len(run.tokens) for run in runs["autoregressive"])
    plain_part = {
        "tokens_s": _speed(runs["autoregressive"]),
        "perplexity": _perplexity(plain_nats, 0, count),
        "perplexity_fp32": _perplexity(plain_nats, 1, count),
    }
    found = {
        policy: {
            "exit_layer": float(np.mean([layer for run in runs[policy] for layer in run.exits])),
            "left_early": float(
                np.mean([layer < reader.layers for run in runs[policy] for layer in run.exits])
            ),
            "speed": spread(
                [a.seconds / b.seconds for a, b in zip(runs["autoregressive"], runs[policy], strict=True)]
            ),
            "agreement": float(np.mean([one for run in runs[policy] for one in run.agreed])),
            "perplexity": _perplexity(nats[policy], 0, count),
            "perplexity_missing_kv": _perplexity(nats[policy], 1, count),
        }
        for policy in policies
    }
    return {
        "weights": kind,
        "prompts": len(texts),
        "layers": reader.layers,
        "plain": plain_part,
        "policies": found,
        "kernels": _kernels(reader, texts[0]),
    }


def _speed(runs: Sequence[Run]) -> float:
    return sum(len(run.tokens) - 1 for run in runs) / sum(run.seconds for run in runs)


def _perplexity(nats: Sequence[tuple[float, float]], which: int, count: int) -> float:
    return float(np.exp(sum(pair[which] for pair in nats) / count))


def _full_surprise(reader: Reader, prompt: list[int], text: Sequence[int]) -> float:
    state = reader.backend.sequence(len(prompt) + len(text), reader.model.kv_dtype)
    slots = list(state.append([*prompt, *text[:-1]]))[len(prompt) - 1 :]
    reader.backend.advance([(state, slots)], reader.layers)
    return surprise(reader.backend.logits([(state, slots)]), text)


def _kernels(reader: Reader, prompt: list[int]) -> dict[str, Any]:
    """Seconds of a plain step, of one that asks every predictor and never leaves, of head and candidates."""
    heads, backend = reader.model.heads, reader.backend
    assert heads.drafter is not None
    assert heads.exits is not None
    state = backend.sequence(len(prompt) + 2 * _REPEATS + 2, reader.model.kv_dtype)
    state.keep(range(1, reader.layers + 1), 512)
    state.append(prompt)
    backend.advance([(state, range(len(prompt) - 1))], reader.layers)
    column = heads.drafter.column(state.capacity, "fp16")
    times: dict[str, list[float]] = {"plain": [], "checked": [], "head": [], "candidates": []}

    def timed(name: str, call: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        result = call()
        times[name].append(time.perf_counter() - begin)
        return result

    drafter, exits = heads.drafter, heads.exits
    for _ in range(_REPEATS):
        slot = state.length - 1
        timed("plain", lambda slot=slot: backend.advance([(state, [slot])], reader.layers))
        token = timed("head", lambda slot=slot: backend.argmax([(state, [slot])]))
        ids = np.arange(exits.candidates)[None] + 7
        timed("candidates", lambda slot=slot, ids=ids: backend.score([(state, [slot])], [reader.layers], ids))
        slot = state.append([int(token[0])])[0]
        call = ExitCall(state, column, slot, exits.layers, 1.0, Sampling())
        left = backend.leave_early(drafter, exits, [call], heads.drafter_head, confirm=True)
        times["checked"].append(left.layers)
        state.append([left.exits[0].token])
    middle = {name: float(np.median(values)) for name, values in times.items()}
    checks = len(exits.layers)
    head_bytes, whole = backend.draft_head(None, None).bytes, reader.model.config.vocab_size
    return {
        "seconds": middle,
        "checked_layers": checks,
        "seconds_a_check": (middle["checked"] - middle["plain"]) / checks,
        "share_of_a_token": (middle["checked"] - middle["plain"])
        / checks
        / (middle["plain"] + middle["head"]),
        "head_bytes": head_bytes,
        # Gathered into a block of their own, which is multiplied whole.
        "candidate_bytes": head_bytes * _BLOCK * -(-exits.candidates // _BLOCK) / whole,
    }


def main() -> None:
    """Run and save."""
    parser = contest_task.parser(__doc__, (), TOKENS)
    parser.add_argument("--policy", action="append", help="may be given again; default: thresholds")
    parser.add_argument("--speculator", type=Path, help="default: the package's")
    options = common.parse(parser)
    result = measure(contest_task.task(options), options.policy or SETTINGS, options.speculator)
    common.finish(options, "early-exit", result)


if __name__ == "__main__":
    main()
