"""One line changed: stock ``generate`` beside the same model under ``specee.accelerate``.

    python -m bench.decode.drop_in [--weights bf16] [--policy NAME]... [--rows 1 8] [--tokens 64]

The model is the checkpoint's transformers form. Stock and ours take turns on each batch of prompts, padded on
the left; texts do not end early. Told are new tokens a second of the whole call, prompt included, which is
what a user of ``generate`` waits for; and how many times the rate a batch has that its prompts had alone,
just before.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specee.errors import ConfigurationError
from specee.models.checkpoint import Checkpoint, open_checkpoint

from .. import options as common
from .. import prompts
from ..progress import progress
from ..spread import ratio, spread

STOCK = "stock generate"
POLICIES = ("auto", "autoregressive")


def measure(
    policies: Sequence[str] = POLICIES,
    *,
    weights: str = "bf16",
    model: str | None = None,
    threads: int,
    rows: Sequence[int] = (1, 8),
    tokens: int = 64,
    rounds: int = 1,
    files: list[Path] | None = None,
    most_prompts: int | None = None,
) -> dict[str, Any]:
    """Run and sum up. Raises ConfigurationError, and BackendUnavailableError without transformers."""
    if tokens < 1 or rounds < 1 or min(rows, default=0) < 1:
        raise ConfigurationError(f"tokens={tokens}, rounds={rounds}, rows={rows}: allowed are 1 or more")
    import torch

    checkpoint = open_checkpoint(model)
    if checkpoint.tokenizer is None:
        raise ConfigurationError(f"{checkpoint.source} has no tokenizer: choose a model that has one")
    torch.set_num_threads(threads)
    stock, ours = models(checkpoint, weights, threads)
    for one in (stock, ours):
        one.generation_config.eos_token_id = None  # every run has the same number of tokens
    texts = prompts.encoded(checkpoint.tokenizer, files)[:most_prompts]
    jobs = [batch for _ in range(rounds) for count in rows for batch in _batches(texts, count)]
    names = (STOCK, *policies)
    found: dict[int, dict[str, list[float]]] = {count: {name: [] for name in names} for count in rows}
    gains: dict[int, dict[str, list[float]]] = {count: {name: [] for name in names} for count in rows}
    same: dict[int, list[bool]] = {count: [] for count in rows}
    alone: dict[tuple[str, tuple[int, ...]], float] = {}  # the latest rate of a prompt by itself
    for policy in policies:
        _timed(ours, _padded(jobs[0]), 1, specee_policy=policy)  # what is measured once is not counted
    for batch in progress(jobs, "batch", total=len(jobs)):
        inputs, count, outputs = _padded(batch), len(batch), []
        for name in names:
            rate, output = (
                _timed(stock, inputs, tokens)
                if name == STOCK
                else _timed(ours, inputs, tokens, specee_policy=name)
            )
            found[count][name].append(rate)
            outputs.append(output)
            keys = [(name, tuple(text)) for text in batch]
            if count == 1:
                alone[keys[0]] = rate
            elif all(key in alone for key in keys):
                gains[count][name].append(rate / statistics.harmonic_mean([alone[key] for key in keys]))
        same[count].append(all(torch.equal(outputs[0], output) for output in outputs))
    return {
        "what": "generate() of transformers, stock and accelerated, greedy",
        "weights": weights,
        "threads": threads,
        "new_tokens": tokens,
        "rounds": rounds,
        "rows": {
            str(count): {
                "tokens_s": {name: spread(rates) for name, rates in own.items()},
                "times_stock": {name: ratio(own[name], own[STOCK]) for name in policies},
                "times_one_row": {name: spread(gain) for name, gain in gains[count].items() if gain},
                "batches": len(own[STOCK]),
                "same_tokens": sum(same[count]),
            }
            for count, own in found.items()
        },
    }


def models(checkpoint: Checkpoint, weights: str, threads: int) -> tuple[Any, Any]:
    """Two transformers models with the same weights, the second of them accelerated."""
    import specee
    from specee.integrations.transformers_model import to_transformers

    stock, ours = (to_transformers(checkpoint, "fp32" if weights == "fp32" else "bf16") for _ in range(2))
    return stock, specee.accelerate(ours, weights=weights, threads=threads)


def _batches(texts: Sequence[list[int]], count: int) -> list[list[list[int]]]:
    """Full batches; texts are used again where there are too few for one."""
    enough = [*texts, *texts * (count // len(texts))] if len(texts) < count else texts
    return [enough[begin : begin + count] for begin in range(0, len(enough) - count + 1, count)]


def _padded(batch: Sequence[list[int]]) -> dict[str, Any]:
    import torch

    width = max(map(len, batch))
    ids = torch.tensor([[0] * (width - len(text)) + text for text in batch])
    mask = torch.tensor([[0] * (width - len(text)) + [1] * len(text) for text in batch])
    return {"input_ids": ids, "attention_mask": mask}


def _timed(model: Any, inputs: dict[str, Any], tokens: int, **more: Any) -> tuple[float, Any]:
    begin = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=0, **more)
    return len(output) * tokens / (time.perf_counter() - begin), output


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument("--weights", default="bf16", choices=("bf16", "fp32", "int8", "int4"))
    parser.add_argument("--policy", action="append", help="may be given again; default: auto, autoregressive")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8], help="prompts in a call")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--most-prompts", type=int, default=None)
    options = common.parse(parser)
    result = measure(
        options.policy or POLICIES,
        weights=options.weights,
        model=options.model,
        threads=options.threads,
        rows=options.rows,
        tokens=options.tokens,
        rounds=options.rounds,
        files=options.prompts,
        most_prompts=options.most_prompts,
    )
    common.finish(options, "drop-in", result)


if __name__ == "__main__":
    main()
