"""Whether exit predictors find a planted exit layer, and whether speed follows the layers that are saved.

    python -m bench.decode.planted_exits [--k 6 --k 12 --k 20] [--weights packed --weights bf16]
        [--fit-tokens 60000] [--threshold 0.99] [--factor F] [--work FOLDER] [--every N] [--tokens 64]

In a planted model (see ``planted_models.py``) the layers beyond k barely act. Each gets a drafter and exit
predictors of its own, fitted by ``specee fit`` on texts that it writes itself (kept in the folder ``work``:
what was fitted stays). Then approximate decoding takes turns with plain decoding, on raw prompts; no text
ends early. Beside the speed stand two that follow from where tokens left and from the latency table: one if
skipped layers cost nothing, and one with the pass that completes waiting rows, sixteen at a time, whose keys
and values the text needs. Both count what the block and the second look at the head took.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import specee
from specee.engine.latency import LatencyMeter
from specee.fitting.entry import fit
from specee.policies import Latency, make_policy
from specee.policies.plans import Times

from .. import options as common
from ..progress import Meter
from ..spread import spread
from . import contest_task, planted_models, planted_task
from .contest_task import Task
from .early_exit import Reader

TOKENS = 64
FIT_TOKENS = 60_000
THRESHOLD = 0.99  # these models write little but repetitions, of which predictors are sure too soon
WAITING = 16  # rows, of SpecEE's policy


def fitted(model: specee.Model, path: Path, tokens: int, work: Path) -> Path:
    """The speculator file of a planted model, made if it is not there."""
    if not path.exists():
        fit(model, path, tokens=tokens, generations=0, work=work)
    return path


class Decoded:
    """Runs of one policy: seconds, tokens, exits, agreement, and the time of backend calls."""

    def __init__(self, reader: Reader, policy: str) -> None:
        self._reader, self.policy = reader, policy
        self.seconds: list[float] = []
        self.exits: list[int] = []
        self.agreed: list[bool] = []
        self.times = Times()

    @property
    def python(self) -> float:
        """Seconds outside backend calls."""
        return sum(self.seconds) - self.times.total

    def decode(self, prompt: list[int]) -> None:
        """One text."""
        reader = self._reader
        generation = reader.model.start(
            prompt, policy=self.policy, max_new_tokens=reader.tokens, do_sample=False, eos_token_id=[]
        )
        for _ in generation:
            pass
        statistics, generated = generation.statistics, generation.sequences[0].generated
        exits = [layer for entry in statistics.rounds() for layer in entry.exits]
        full = reader.most_likely(prompt, generated)
        self.seconds.append(statistics.seconds)
        self.exits += exits or [reader.layers] * len(generated)
        self.agreed += [a == b for a, b in zip(full, generated, strict=True)]
        self.times = Times(*map(sum, zip(self.times, statistics.times, strict=True)))


def expected(latency: Latency, exits: list[int], layers: int, more: float) -> tuple[float, float]:
    """Times plain decoding, for free and with completion; ``more``: seconds a token beside both."""
    plain = latency.layers_seconds(layers, 1) + latency.head_seconds(1) + latency.step
    mean = float(np.mean(exits))
    left = plain - latency.layers_seconds(1, 1) * (layers - mean) + more
    # Of every seventeen rows sixteen wait, and the last one takes them along from where they are.
    deeper = latency.layers_seconds(1, WAITING + 1) * (layers - mean) / (WAITING + 1)
    return plain / left, plain / (left + deeper)


def measure(
    task: Task, *, work: Path, ks: list[int], factor: float, fit_tokens: int, threshold: float
) -> dict[str, Any]:
    """Plant, fit, decode. Raises ConfigurationError for what is not allowed."""
    policy = f"specee:mode=approximate,layers=all,threshold={threshold:g}"
    make_policy(policy)
    checkpoint = task.opened(())
    for k in ks:
        planted_models.check(checkpoint, k)
    texts, kinds = task.texts(checkpoint, task.files, raw=True), task.kinds(checkpoint)
    meter = Meter(len(ks) * len(kinds) * len(texts), "text")
    parts = []
    try:
        for k in ks:
            path = planted_models.planted(task.model, k, work, factor=factor)
            for weights in kinds:
                own = work / f"{path.stem}-{weights}.safetensors"
                bare = specee.load(path, weights=weights, backend="cpu", threads=task.threads)  # type: ignore[arg-type]
                fitted(bare, own, fit_tokens, work / own.stem)
                model = specee.load(
                    path, weights=weights, backend="cpu", threads=task.threads, speculator=own
                )  # type: ignore[arg-type]
                part = one_model(Reader(model, task.tokens), texts, policy, meter)
                parts.append({"k": k, "weights": weights, **part})
    finally:
        meter.close()
    return {
        "what": "planted models: approximate decoding by exit predictors, greedy, batch 1, interleaved",
        **task.facts(checkpoint),
        "factor": factor,
        "fit_tokens": fit_tokens,
        "policy": policy,
        "parts": parts,
    }


def one_model(reader: Reader, texts: list[list[int]], policy: str, meter: Meter) -> dict[str, Any]:
    """Turns of plain and approximate decoding."""
    latency = LatencyMeter(reader.backend).table()
    plain, early = Decoded(reader, "autoregressive"), Decoded(reader, policy)
    for one in (plain, early):
        Decoded(reader, one.policy).decode(texts[0])  # warm
    for index, text in enumerate(texts):
        for one in (plain, early)[:: 1 if index % 2 else -1]:
            one.decode(text)
        meter.advance(1)
    count = len(early.exits)
    head = (early.times.head - plain.times.head) / count
    free, completed = expected(latency, early.exits, reader.layers, early.times.draft / count + head)
    return {
        "prompts": len(texts),
        "layers": reader.layers,
        "exit_layer": {
            "mean": float(np.mean(early.exits)),
            "median": float(np.median(early.exits)),
            "p90": float(np.percentile(early.exits, 90)),
        },
        "left_early": float(np.mean(np.array(early.exits) < reader.layers)),
        "agreement": float(np.mean(early.agreed)),
        "speed": spread([a / b for a, b in zip(plain.seconds, early.seconds, strict=True)]),
        "total": sum(plain.seconds) / sum(early.seconds),
        "expected": {"skipped for free": free, "skipped and completed": completed},
        "layer_seconds": early.times.verify / plain.times.verify,
        "layers_passed": float(np.mean(early.exits)) / reader.layers,
        "block_us": 1e6 * early.times.draft / count,
        "head_us": 1e6 * head,
        "python_us": {"plain": 1e6 * plain.python / count, "early": 1e6 * early.python / count},
    }


def main() -> None:
    """Run and save."""
    parser = contest_task.parser(__doc__, (), TOKENS)
    planted_task.add_options(parser)
    parser.add_argument("--fit-tokens", type=int, default=FIT_TOKENS, help="default: %(default)s")
    parser.add_argument("--threshold", type=float, default=THRESHOLD, help="default: %(default)s")
    options = common.parse(parser)
    with planted_task.folder(options.work) as work:
        result = measure(
            contest_task.task(options),
            work=work,
            ks=list(dict.fromkeys(options.k or planted_task.KS)),
            factor=options.factor,
            fit_tokens=options.fit_tokens,
            threshold=options.threshold,
        )
    common.finish(options, "planted-exits", result)


if __name__ == "__main__":
    main()
