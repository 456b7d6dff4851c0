"""One line for each format of the weights: tokens/s, perplexity and memory.

    python -m bench.decode.formats [--weights bf16 --weights packed ...] [--rounds 2] [--tokens 20000]

Speed is measured as in ``speed.py``, all formats in one interleaved run; perplexity as in ``perplexity.py``,
with transformers in fp32 as the reference where it is installed. int8 and int4 are quantised at load from
the checkpoint's values. Exits with 1 like ``perplexity.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from specee.models.checkpoint import open_checkpoint

from .. import options as common
from . import contenders, perplexity, speed
from .contenders import OURS, WEIGHTS


def default_weights(model: str | None) -> list[str]:
    """Every format that the checkpoint can be stored in, packed for GGUF files only."""
    packed = open_checkpoint(model).format.startswith("gguf")
    return ["bf16", *(["packed"] if packed else []), "int8", "int4"]


def measure(
    weights: Sequence[str],
    *,
    model: str | None = None,
    threads: int,
    rounds: int = 2,
    new_tokens: int = 64,
    tokens: int = 20_000,
    files: list[Path] | None = None,
    most_prompts: int | None = None,
) -> dict[str, Any]:
    """The table."""
    names = [f"{OURS}:{name}" for name in weights]
    fast = speed.measure(
        names,
        model=model,
        threads=threads,
        rounds=rounds,
        tokens=new_tokens,
        files=files,
        most_prompts=most_prompts,
    )
    reference = not contenders.usable(("transformers",))[1]
    good = perplexity.measure(weights, model=model, threads=threads, tokens=tokens, with_reference=reference)
    table = {}
    for name in weights:
        figures = fast["contenders"][f"{OURS}:{name}"]
        table[name] = {
            "decode_tokens_s": figures["decode_tokens_s"],
            "prompt_tokens_s": figures["prompt_tokens_s"],
            "share_of_bandwidth": figures["share_of_bandwidth"],
            "bytes_per_token": figures["bytes_per_token"],
            "weight_bytes": figures["weight_bytes"],
            "peak_bytes": figures["peak_bytes"],
            "perplexity": good["perplexity"][name],
        }
        if reference:
            table[name]["perplexity_difference"] = good["difference"][name]
    return {
        "what": "formats of the weights",
        "threads": threads,
        "speed": {key: fast[key] for key in ("prompts", "new_tokens", "rounds", "turns", "bandwidth_gb_s")},
        "text": {key: good[key] for key in ("tokens", "window", "text_sha256")},
        "reference_perplexity": good["perplexity"].get(perplexity.REFERENCE),
        "formats": table,
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    choices = [name for name in WEIGHTS if name != "auto"]
    parser.add_argument(
        "--weights", action="append", choices=choices, help="may be given again; default: all but fp32"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=64, help="decoded after each prompt")
    parser.add_argument("--tokens", type=int, default=20_000, help="of the text whose perplexity is taken")
    options = common.parse(parser)
    result = measure(
        options.weights or default_weights(options.model),
        model=options.model,
        threads=options.threads,
        rounds=options.rounds,
        new_tokens=options.new_tokens,
        tokens=options.tokens,
        files=options.prompts,
    )
    common.finish(options, "formats", result)
    perplexity.check({n: f.get("perplexity_difference", 0.0) for n, f in result["formats"].items()})


if __name__ == "__main__":
    main()
