"""Decoding and prompt speed of any contenders, in one interleaved run.

    python -m bench.decode.speed [--contender NAME]... [--rounds 3] [--tokens 96] [--prompts FILE]...

For each prompt and round the contenders take turns, in an order that rotates, and so does a read-only sweep
over 512 MB, so that a machine whose speed drifts slows all of them alike. Figures are medians with their
range; ratios are taken turn by turn. Each contender has a process of its own (``worker.py``). Contenders are
named as in ``contenders.py``; all are greedy, ignore end-of-text tokens, and make the same number of tokens
after the same ids. Peak memory is measured apart (``memory.py``), with the longest prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from specee.errors import ConfigurationError
from specee.models.checkpoint import open_checkpoint

from .. import options as common
from .. import prompts
from ..progress import progress
from ..spread import ratio, spread
from ..sweep import bandwidth
from . import contenders, memory, worker
from .rounds import figures as figures_of_rounds
from .worker import Remote, Sample


@dataclass
class Turn:
    """One prompt, one round: every contender once, and the bandwidth just then."""

    prompt_tokens: int
    bandwidth: float
    samples: dict[str, Sample] = field(default_factory=dict)


def take_turn(order: Sequence[Remote], prompt: list[int], tokens: int, threads: int) -> Turn:
    """Every contender once on one prompt, in this order."""
    turn = Turn(len(prompt), bandwidth(threads))
    for contender in order:
        turn.samples[contender.name] = contender.sample(prompt, tokens)
    return turn


def figures(name: str, turns: Sequence[Turn], facts: dict[str, Any], reference: str) -> dict[str, Any]:
    """What is reported of one contender; ``reference`` is the first, whose tokens are compared with.

    Ours are also compared with its speed: what drafting gains over plain decoding, where that comes first.
    """
    samples = [turn.samples[name] for turn in turns]
    rates = [sample.tokens_s for sample in samples]
    found: dict[str, Any] = {
        **facts,
        "first_token_s": spread([sample.first_s for sample in samples]),
        "prompt_tokens_s": spread([turn.prompt_tokens / turn.samples[name].first_s for turn in turns]),
        "decode_tokens_s": spread(rates),
        "tokens_per_step": sum(len(s.tokens) for s in samples) / sum(s.steps for s in samples),
        "same_text_turns": sum(t.samples[name].tokens == t.samples[reference].tokens for t in turns),
    }
    if ours := [sample.rounds for sample in samples if sample.rounds]:
        found |= figures_of_rounds(ours)
        found["decode_to_first"] = ratio(rates, [turn.samples[reference].tokens_s for turn in turns])
    # With drafts a token costs other bytes than a step, so what is read is not known from the rate.
    if "bytes_per_token" in facts and not found.get("drafted"):
        read = [rate * facts["bytes_per_token"] / 1e9 for rate in rates]
        best = max(turn.bandwidth for turn in turns)
        found["share_of_bandwidth"] = ratio(read, [turn.bandwidth for turn in turns])
        found["share_of_best_bandwidth"] = spread(read)["median"] / best
    return found


def ratios(turns: Sequence[Turn], ours: Sequence[str], peers: Sequence[str]) -> dict[str, Any]:
    """Each of ours over each peer, turn by turn."""

    def one(mine: str, peer: str) -> dict[str, Any]:
        a = [turn.samples[mine] for turn in turns]
        b = [turn.samples[peer] for turn in turns]
        return {
            "decode": ratio([s.tokens_s for s in a], [s.tokens_s for s in b]),
            "prompt": ratio([s.first_s for s in b], [s.first_s for s in a]),
        }

    return {mine: {peer: one(mine, peer) for peer in peers} for mine in ours if peers}


def rotated(items: Sequence[Remote], by: int) -> list[Remote]:
    """Starting ``by`` places later; every other time backwards, so that neighbours change as well."""
    start = by % len(items)
    turned = [*items[start:], *items[:start]]
    return turned if (by // len(items)) % 2 == 0 else turned[::-1]


def measure(
    names: Sequence[str],
    *,
    model: str | None = None,
    threads: int,
    rounds: int = 3,
    tokens: int = 96,
    files: list[Path] | None = None,
    most_prompts: int | None = None,
    with_memory: bool = True,
    lenient: bool = False,
) -> dict[str, Any]:
    """Run and sum up; ``lenient`` leaves out what cannot be loaded, and says why. Raises WorkerError."""
    if tokens < 2 or rounds < 1:
        raise ConfigurationError(
            f"tokens={tokens}, rounds={rounds}: a rate needs 2 tokens and 1 round or more"
        )
    if len(set(names)) != len(names) or not names:
        raise ConfigurationError(f"contenders {', '.join(names)!r}: one or more are needed, each once")
    checkpoint = open_checkpoint(model)
    if checkpoint.tokenizer is None:
        raise ConfigurationError(f"{checkpoint.source} has no tokenizer: the prompts are texts")
    texts = prompts.encoded(checkpoint.tokenizer, files)[:most_prompts]
    capacity = max(map(len, texts)) + tokens
    memories = {}
    if with_memory:
        for name in progress(names, "process"):
            memories[name] = memory.in_child(name, model, threads, context=capacity)
    jobs = texts * rounds
    failed: dict[str, str] = {}
    with worker.started(names, model, threads, capacity, failed if lenient else None) as loaded:
        if not loaded:
            raise worker.WorkerError("; ".join(failed.values()))
        for contender in loaded:
            contender.sample(texts[0], 8)  # not counted
        turns = [
            take_turn(rotated(loaded, index), text, tokens, threads)
            for index, text in enumerate(progress(jobs, "turn", total=len(jobs)))
        ]
        for contender in loaded:
            contender.learn()
    ours = [c.name for c in loaded if c.ours]
    peers = [c.name for c in loaded if not c.ours]
    return {
        "what": "greedy decoding, batch 1, interleaved",
        "model": Path(checkpoint.source).name,
        "threads": threads,
        "prompts": len(texts),
        "prompt_files": [path.name for path in files or [prompts.OWN]],
        "new_tokens": tokens,
        "rounds": rounds,
        "turns": len(turns),
        "bandwidth_gb_s": spread([turn.bandwidth for turn in turns]),
        "contenders": {
            c.name: figures(c.name, turns, c.facts, loaded[0].name)
            | ({"peak_bytes": memories[c.name]["peak_bytes"]} if with_memory else {})
            for c in loaded
        },
        "ratios": ratios(turns, ours, peers),
        "missing": failed,
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument(
        "--contender", action="append", help=f"may be given again; default: {', '.join(contenders.DEFAULT)}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--most-prompts", type=int, help="take the first so many of the prompts")
    parser.add_argument("--lenient", action="store_true", help="leave out what cannot be loaded")
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory")
    options = common.parse(parser)
    names = tuple(options.contender or contenders.DEFAULT)
    good, missing = contenders.usable(names)
    if missing and options.contender and not options.lenient:
        raise SystemExit(f"error: {'; '.join(missing.values())}")
    result = measure(
        good,
        model=options.model,
        threads=options.threads,
        rounds=options.rounds,
        tokens=options.tokens,
        files=options.prompts,
        most_prompts=options.most_prompts,
        with_memory=not options.no_memory,
        lenient=options.lenient,
    )
    common.finish(options, "speed", {**result, "missing": missing | result["missing"]})


if __name__ == "__main__":
    main()
