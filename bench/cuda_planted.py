"""What DEL and SpecEE gain where it is known what there is to gain: planted models on this machine's device.

    python -m bench.cuda_planted [--save NAME] [--out FILE] [--seed N]

A model of the shape of Llama-2-7B in bf16, of which it is planted after how many layers it knows what follows
which token (``planted_truth.py``, ``cuda_planted_weights.py``): the name of a case has the shares of tokens
that are known after 8 and after 16 of the 32 layers, all others after the last alone; half of what an exit
says of those is wrong with the same confidence. Policies take turns with plain decoding, forwards and
backwards on each text (``decode/interleaved.py``), greedy, one text at a time, which nothing ends: their
tokens a second, and how many times plain decoding's in the same turns, with the spread over texts. Beside
that: the share of drafts that was accepted; after how many layers drafts left on average, or in approximate
decoding tokens (one in seventeen at least goes through all layers, and takes along what waits); and the share
of tokens that is the whole model's. ``layerskip`` with either planted layer is what DEL may choose.

Exits with 1 if plain decoding does not say what was planted, or if a lossless policy says anything else. The
speculator is constructed, too (``cuda_planted_parts.py``): these are gains of the runtime and the policies
where predictors see what is there, not of what fitting finds. Needs torch with CUDA, and 16 GB of its memory.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import specee
from specee.engine.statistics import Statistics
from specee.errors import SpeceeError
from specee.models.checkpoint import Checkpoint
from specee.policies import ExitLayer
from specee.types import ModelConfig

from .cuda_planted_parts import planted_speculator
from .cuda_planted_weights import PlantedWeights, planted_weights
from .cuda_random import backend_with
from .cuda_shapes import LLAMA_2_7B
from .cuda_task import Report, finish, parser
from .decode.interleaved import Bench, Contest
from .decode.lossless import PLAIN
from .planted_truth import Truth, planted_truth
from .progress import Meter

APPROXIMATE = "specee:mode=approximate"
DRAFTS = 4  # of the static policies
SEED = 7


class Case(NamedTuple):
    """Shares of tokens that each stage but the last knows what follows."""

    right: tuple[float, ...]

    @property
    def name(self) -> str:
        """Such as "60% and 90% known early"."""
        return " and ".join(f"{share:.0%}" for share in self.right) + " known early"


@dataclass(frozen=True)
class Plan:
    """What is measured: a shape, the layers after which stages end, and how much is decoded."""

    config: ModelConfig
    layers: tuple[int, ...]
    cases: tuple[Case, ...]
    texts: int = 3
    prompt: int = 64
    tokens: int = 64

    @property
    def policies(self) -> tuple[str, ...]:
        """Beside plain decoding."""
        static = [f"layerskip:exit_layer={layer},speculation_length={DRAFTS}" for layer in self.layers]
        return ("del", *static, "specee", APPROXIMATE)


# What is done when the time is up is written: the one that tells most comes first, and last the one in which
# there is little to gain.
LLAMA = Plan(LLAMA_2_7B, (8, 16), (Case((0.6, 0.9)), Case((0.9, 0.97)), Case((0.2, 0.6))))


class Run(NamedTuple):
    """One generation: the token before it, its own, and how many rows left after which layer."""

    before: int
    tokens: Seq[int]
    exits: Counter[int]


class Kept:
    """A model whose runs are kept, by policy: a contest adds up seconds, and forgets what was said."""

    def __init__(self, model: specee.Model) -> None:
        self._model = model
        self.runs: dict[str, list[Run]] = {}

    def generate(self, prompts: list[list[int]], *, policy: str, **options: Any) -> Any:
        """As the model does."""
        found = self._model.generate(prompts, policy=policy, **options)
        run = Run(prompts[0][-1], found.tokens[0], exits_of(found.statistics))
        self.runs.setdefault(policy, []).append(run)
        return found


def exits_of(statistics: Statistics) -> Counter[int]:
    """After how many layers predictors let rows go, or exit layers drafted, the first step aside."""
    found: Counter[int] = Counter()
    for entry in (entry for step in statistics.steps[1:] for entry in step):
        found.update(entry.exits)
        if isinstance(entry.source, ExitLayer) and entry.drafted:
            found[entry.source.layer] += entry.drafted
    return found


def model_of(made: PlantedWeights, device: str, **arguments: Any) -> specee.Model:
    """The model, with its speculator, as generation wants it."""
    backend = backend_with(made.weights, made.config, device, **arguments)
    no_table: Any = None  # all weights are there, and nothing is read
    checkpoint = Checkpoint(made.config, no_table, None, (), None, {}, "planted", "in memory")
    return specee.Model(checkpoint, backend, speculator=planted_speculator(made))


def compared(model: specee.Model, truth: Truth, plan: Plan) -> dict[str, Any]:
    """The figures of one case."""
    vocab = model.config.vocab_size
    texts = [truth.text(vocab * text // plan.texts, plan.prompt) for text in range(plan.texts)]
    Bench(model, plan.tokens).warm_up(texts[0], plan.policies)
    kept = Kept(model)
    bench = Bench(kept, plan.tokens)
    meter = Meter(bench.work(len(texts), len(plan.policies)), "token")
    try:
        contest = bench.compare(texts, plan.policies, meter)
    finally:
        meter.close()
    found = figures(contest, kept.runs, truth)
    return {"planted": planted(kept.runs[PLAIN], truth, plan), **found}


def figures(contest: Contest, runs: dict[str, list[Run]], truth: Truth) -> dict[str, Any]:
    """Of every policy, and where the texts of lossless ones differ from plain decoding's."""
    policies = {
        policy: {
            **contest.figures(policy),
            "exit_layer": mean(sum((run.exits for run in runs[policy]), Counter())),
            "agreement": agreement(runs[policy], truth),
        }
        for policy in contest.policies
    }
    differing = {policy: found for policy, found in contest.differing.items() if policy != APPROXIMATE}
    return {"texts": len(contest.turns), "policies": policies, "differing": differing}


def mean(counts: Counter[int]) -> float | None:
    """None of nothing."""
    return sum(layer * count for layer, count in counts.items()) / counts.total() if counts else None


def newest(runs: Seq[Run]) -> list[int]:
    """The token before each of all tokens."""
    return [token for run in runs for token in (run.before, *run.tokens[:-1])]


def agreement(runs: Seq[Run], truth: Truth) -> float:
    """The share of tokens that the whole model would have said after the one before."""
    said = [token for run in runs for token in run.tokens]
    return float((truth.after[newest(runs)] == said).mean())


def planted(runs: Seq[Run], truth: Truth, plan: Plan) -> dict[str, Any]:
    """What there was to find in these texts: shares known by layer, and the mean layer that knows first."""
    ends = (*plan.layers, plan.config.num_layers)
    first = Counter(ends[stage] for stage in truth.first_right(newest(runs)))
    known = {f"{to} layers": sum(first[end] for end in ends if end <= to) / first.total() for to in ends}
    return {"known": known, "exit_layer": mean(first)}


def checked(found: dict[str, Any]) -> dict[str, float]:
    """Tokens are those that were planted. Raises SpeceeError where they are not."""
    share = found["policies"][PLAIN]["agreement"]
    if share < 1:
        raise SpeceeError(f"plain decoding says {share:.2%} of what was planted")
    if found["differing"]:
        raise SpeceeError(f"not lossless: {found['differing']}")
    return {"agreement": share}


def words(found: dict[str, Any]) -> str:
    """A line of one case."""
    policies = dict(found["policies"])
    plain = policies.pop(PLAIN)["tokens_s"]
    times = [f"{policy} {one['decode']['total']:.2f}x" for policy, one in policies.items()]
    return "\n    ".join([f"{plain:7.1f} tokens/s", *times])


def measure(report: Report, plan: Plan, device: str, seed: int = SEED, **arguments: Any) -> None:
    """Every case in one model: its embedding differs. Raises SpeceeError where there is no such model."""
    made = planted_weights(plan.config, plan.layers, device, seed)
    model = model_of(made, device, **arguments)
    for case in plan.cases:
        truth = planted_truth(plan.config.vocab_size, case.right, seed)
        made.show(truth)
        report.measure("cases", case.name, partial(compared, model, truth, plan), words)
        found = report["cases"][case.name]
        if "error" not in found:
            report.measure("checks", case.name, partial(checked, found), lambda _: "tokens as planted")


def run(report: Report, seed: int = SEED) -> None:
    """Measure everything. Raises BackendUnavailableError without kernels or a device."""
    from specee.cuda import choose

    chosen = choose()
    import torch

    report |= {
        "what": "planted model of the shape of Llama-2-7B: policies beside plain decoding, interleaved",
        "device": torch.cuda.get_device_name(),
        "kernels_by": chosen.how,
        "seed": seed,
        "layers": list(LLAMA.layers),
        "prompt": LLAMA.prompt,
        "new_tokens": LLAMA.tokens,
    }
    measured = partial(measure, report, LLAMA, "cuda", seed, launcher=chosen.launcher)
    report.attempt("cases", "Llama-2-7B, bf16", measured)


def main() -> int:
    """Measure, print, and save if asked to."""
    made = parser(__doc__)
    made.add_argument("--seed", type=int, default=SEED, help="of weights and truths; default: %(default)s")
    options: argparse.Namespace = made.parse_args()
    return finish(options, partial(run, seed=options.seed))


if __name__ == "__main__":
    sys.exit(main())
