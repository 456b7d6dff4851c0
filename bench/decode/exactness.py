"""fp32 logits and greedy continuations against transformers fp32 with the same weights.

    python -m bench.decode.exactness [--prompts FILE ...] [--tokens 64]

Logits: every position of the project's five longest prompts. Continuations: ours are made first, then
transformers reads prompt and continuation in one pass; at the first position where its argmax differs
from our token, the gap between its two best logits is reported. A gap under 1e-3 is a near-tie, which
rounding decides. Exits with 1 if a logit differs by more than 2e-3 or a continuation beyond a near-tie.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

import specee
from specee.integrations.transformers_model import to_transformers
from specee.models.checkpoint import open_checkpoint

from .. import options as common
from .. import prompts
from ..progress import progress

NEAR_TIE = 1e-3
LOGIT_LIMIT = 2e-3


@dataclass
class Divergence:
    """Where a continuation first differs from transformers' choice, and how clear that choice was."""

    prompt: int
    position: int
    gap: float


def reference_logits(model: Any, tokens: list[int]) -> np.ndarray[Any, Any]:
    """Logits of every position, (tokens, vocab)."""
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy()


def largest_difference(backend: Any, model: Any, tokens: list[int]) -> float:
    """Greatest absolute difference of any logit of any position."""
    sequence = backend.sequence(len(tokens))
    slots = sequence.append(tokens)
    backend.advance([(sequence, slots)], backend.config.num_layers)
    return float(np.abs(backend.logits([(sequence, slots)]) - reference_logits(model, tokens)).max())


def first_divergence(model: Any, index: int, prompt: list[int], new: list[int]) -> Divergence | None:
    """Compare a continuation with transformers' greedy choice at each of its positions."""
    logits = reference_logits(model, prompt + new)[len(prompt) - 1 : -1]
    for position, (row, token) in enumerate(zip(logits, new, strict=True)):
        if int(row.argmax()) != token:
            second, first = np.partition(row, -2)[-2:]
            return Divergence(index, position, float(first - second))
    return None


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument("--tokens", type=int, default=64)
    options = common.parse(parser)
    torch.set_num_threads(options.threads)

    checkpoint = open_checkpoint(options.model)
    assert checkpoint.tokenizer is not None
    ours = specee.load(options.model, weights="fp32", backend="cpu", threads=options.threads)
    theirs = to_transformers(checkpoint, "fp32")
    texts = prompts.encoded(checkpoint.tokenizer, options.prompts)
    longest = sorted(prompts.encoded(checkpoint.tokenizer), key=len)[-5:]
    differences = [largest_difference(ours.backend, theirs, text) for text in longest]
    found: list[Divergence] = []
    compared = 0
    for index, prompt in enumerate(progress(texts, "prompt")):
        output = ours.generate([prompt], max_new_tokens=options.tokens, do_sample=False)
        new = [int(token) for token in output[0][len(prompt) :]]
        compared += len(new)
        difference = first_divergence(theirs, index, prompt, new)
        found += [difference] if difference else []
    result = {
        "what": "fp32 against transformers fp32, same weights",
        "logits": {"prompt_tokens": [len(t) for t in longest], "largest_difference": differences},
        "continuations": {
            "prompts": len(texts),
            "tokens": compared,
            "near_ties": [vars(d) for d in found if d.gap < NEAR_TIE],
            "divergences": [vars(d) for d in found if d.gap >= NEAR_TIE],
        },
    }
    common.finish(options, "exactness", result)
    if max(differences) > LOGIT_LIMIT or any(d.gap >= NEAR_TIE for d in found):
        sys.exit(f"not exact: a logit differs by over {LOGIT_LIMIT}, or a token beyond a near-tie")


if __name__ == "__main__":
    main()
