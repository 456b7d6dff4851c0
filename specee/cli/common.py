"""What the commands share: loading, sampling options, streamed text."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from typing import Any

import specee
from specee.models.tokenizer import Tokenizer

_SAMPLES = {"temperature", "top_k", "top_p", "min_p"}
_SHAPING = (*sorted(_SAMPLES), "repetition_penalty", "seed", "stop_strings", "acceptance")


def load_model(options: argparse.Namespace) -> specee.Model:
    """The model that the options ask for."""
    return specee.load(
        options.model,
        weights=options.weights,
        device=options.device,
        kv_dtype=options.kv_dtype,
        max_context=options.max_context,
        threads=options.threads,
        speculator=False if options.speculator == "none" else options.speculator,
    )


def decoding(options: argparse.Namespace) -> dict[str, Any]:
    """Generation options by name, those that were given.

    On the command line a temperature, top-p, top-k or min-p means: sample.
    """
    chosen = {name: value for name in _SHAPING if (value := getattr(options, name)) is not None}
    sampled = not _SAMPLES.isdisjoint(chosen) and chosen.get("temperature") != 0
    return {"max_new_tokens": options.max_new_tokens, "do_sample": sampled, **chosen}


def print_stream(steps: Iterable[Mapping[int, tuple[int, ...]]], tokenizer: Tokenizer) -> str:
    """Print the text of a generation's sequence 0 as it comes; returns it, also in part after Ctrl-C."""
    decoder, pieces = tokenizer.stream(skip_special_tokens=True), []
    for step in steps:
        for token in step[0]:
            pieces.append(decoder.push(token))
            print(pieces[-1], end="", flush=True)
    pieces.append(decoder.finish())
    print(pieces[-1], flush=True)
    return "".join(pieces)
