"""Decoding and prompt speed beside transformers, in one interleaved run.

    python -m bench.decode.speed [--weights bf16] [--threads 2] [--rounds 3] [--tokens 96] [--prompts FILE]

For each prompt and round the contenders take turns, and so does a read-only sweep over 512 MB, so that a
machine whose speed drifts slows all of them alike. Figures are medians; ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine, prompts
from bench.decode import contenders
from specee import _cpu
from specee.integrations.stopwatch import Stopwatch
from specee.models.checkpoint import open_checkpoint
from specee.models.table import shapes

SWEEP_BYTES = 512 << 20


@dataclass
class Turn:
    """One prompt, one round: every contender once, and the bandwidth just then."""

    prompt_tokens: int
    bandwidth: float
    decode: dict[str, float] = field(default_factory=dict)  # tokens/s
    first: dict[str, float] = field(default_factory=dict)  # seconds


def take_turn(order: list[tuple[str, contenders.Run]], prompt: list[int], tokens: int, threads: int) -> Turn:
    """Every contender once on one prompt, in this order."""
    turn = Turn(len(prompt), _cpu.measure_bandwidth(SWEEP_BYTES, threads))
    for name, run in order:
        clock = Stopwatch()
        produced = run(prompt, tokens, clock)
        if len(produced) != tokens:
            raise RuntimeError(f"{name} made {len(produced)} tokens of {tokens}: rates would not compare")
        turn.decode[name] = clock.tokens_per_s
        turn.first[name] = clock.first_token_s
    return turn


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(turns: list[Turn], names: list[str], bytes_per_token: int) -> dict[str, Any]:
    """Medians of every figure; ratios and shares taken within a turn."""
    mine, peer = names
    return {
        "turns": len(turns),
        "bandwidth_gb_s": spread([t.bandwidth for t in turns]),
        "best_bandwidth_gb_s": max(t.bandwidth for t in turns),
        "decode_tokens_s": {n: spread([t.decode[n] for t in turns]) for n in names},
        "prompt_tokens_s": {n: spread([t.prompt_tokens / t.first[n] for t in turns]) for n in names},
        "decode_ratio": spread([t.decode[mine] / t.decode[peer] for t in turns]),
        "prompt_ratio": spread([t.first[peer] / t.first[mine] for t in turns]),
        "bytes_per_token": bytes_per_token,
        "share_of_bandwidth_then": spread(
            [t.decode[mine] * bytes_per_token / 1e9 / t.bandwidth for t in turns]
        ),
        "share_of_best_bandwidth": statistics.median(t.decode[mine] for t in turns)
        * bytes_per_token
        / 1e9
        / max(t.bandwidth for t in turns),
    }


def weight_bytes(config: Any, weights: str) -> int:
    """Bytes of the weights one token reads: all of them, a tied embedding once."""
    width = 4 if weights == "fp32" else 2
    sizes = [
        shape[0] * (shape[1] * width if len(shape) == 2 else 4)
        for (role, _), shape in shapes(config).items()
        if role != "embed" or config.tied_head
    ]
    return sum(sizes)


def main() -> None:
    """Run and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=None, help="folder, GGUF file or hub id")
    parser.add_argument("--weights", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--prompts", type=Path, action="append", help="may be given again")
    parser.add_argument("--save", metavar="NAME", help="write bench/results/NAME.json")
    options = parser.parse_args()
    if options.tokens < 2:
        parser.error(f"--tokens {options.tokens}: a rate needs 2 or more")

    checkpoint = open_checkpoint(options.model)
    assert checkpoint.tokenizer is not None
    runs = {
        "specee": contenders.ours(options.model, options.weights, options.threads),
        "transformers": contenders.transformers_plain(checkpoint, options.weights, options.threads),
    }
    texts = prompts.encoded(checkpoint.tokenizer, options.prompts)
    for run in runs.values():
        run(texts[0], 8, Stopwatch())  # not counted
    contestants = list(runs.items())
    turns = []
    for number in range(options.rounds):
        for index, text in enumerate(texts):
            order = contestants if (number + index) % 2 == 0 else contestants[::-1]
            turns.append(take_turn(order, text, options.tokens, options.threads))
    result = {
        "what": "greedy decoding, batch 1, interleaved",
        "weights": options.weights,
        "threads": options.threads,
        "new_tokens": options.tokens,
        **summary(turns, list(runs), weight_bytes(checkpoint.config, options.weights)),
    }
    for key, value in result.items():
        print(f"{key}: {value}")
    if options.save:
        print("saved", machine.save(options.save, result))


if __name__ == "__main__":
    main()
