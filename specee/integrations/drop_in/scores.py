"""Which of transformers' logits processors the engine applies itself, and how the others are called.

A processor is called once for each token that is emitted, with the row up to that token: (1, tokens) ids and
(1, vocab_size) fp32 scores. Of several rows that gives what transformers computes as long as it treats rows
alike and apart, as these built-in ones do. Any other (the user's own, one that remembers) is called with all
rows, in lock-step.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from specee.errors import ConfigurationError
from specee.integrations.drop_in.call import Call
from specee.options import listed
from specee.types import Sampling

# Each row by itself, and nothing kept from call to call.
_BY_ROW = {
    getattr(transformers, name)
    for name in (
        "EpsilonLogitsWarper",
        "EtaLogitsWarper",
        "ExponentialDecayLengthPenalty",
        "ForcedBOSTokenLogitsProcessor",
        "ForcedEOSTokenLogitsProcessor",
        "InfNanRemoveLogitsProcessor",
        "LogitNormalization",
        "MinLengthLogitsProcessor",
        "MinNewTokensLengthLogitsProcessor",
        "MinPLogitsWarper",
        "NoBadWordsLogitsProcessor",
        "NoRepeatNGramLogitsProcessor",
        "RepetitionPenaltyLogitsProcessor",
        "SequenceBiasLogitsProcessor",
        "SuppressTokensAtBeginLogitsProcessor",
        "SuppressTokensLogitsProcessor",
        "TemperatureLogitsWarper",
        "TopHLogitsWarper",
        "TopKLogitsWarper",
        "TopPLogitsWarper",
        "TypicalLogitsWarper",
    )
    if hasattr(transformers, name)
}
# What the engine draws with, in its order: the setting, and the processor that stands for it.
_DRAWN = (
    (transformers.TemperatureLogitsWarper, "temperature"),
    (transformers.TopKLogitsWarper, "top_k"),
    (transformers.TopPLogitsWarper, "top_p"),
    (transformers.MinPLogitsWarper, "min_p"),
)


@dataclass(frozen=True)
class Rules:
    """How tokens come of scores: ``called`` first, but for the penalty of ``sampling``, then ``sampling``.

    ``sampling`` has no seed yet.
    """

    sampling: Sampling
    called: tuple[Any, ...]

    @property
    def by_row(self) -> bool:
        """Whether rows may be processed one by one."""
        return all(type(processor) in _BY_ROW for processor in self.called)

    def of_row(self, row: int) -> Any:
        """The list to call for one row of several."""
        return transformers.LogitsProcessorList([_of_row(processor, row) for processor in self.called])


def rules(call: Call) -> Rules:
    """Leave to the engine what it does alike, in the same order; all is called where scores are wanted."""
    temperature = 1.0 if call.sampled else 0.0
    items = list(call.processors)
    if call.keeps:
        return Rules(Sampling(temperature=temperature), tuple(items))
    settings: dict[str, Any] = {"temperature": temperature}
    if items and _penalises_as_we_do(items[0], call):
        settings["repetition_penalty"] = float(items.pop(0).penalty)
    if call.sampled:
        settings |= _take_drawn(items)
    return Rules(Sampling(**settings), tuple(items))


def _penalises_as_we_do(processor: Any, call: Call) -> bool:
    """A repetition penalty over the whole text of a row, and not over its padding."""
    if type(processor) is not transformers.RepetitionPenaltyLogitsProcessor:
        return False
    ignored = getattr(processor, "prompt_ignore_length", None)
    skipped = [0] * call.rows if ignored is None else ignored
    skipped = skipped.tolist() if hasattr(skipped, "tolist") else skipped
    return bool(1e-3 <= processor.penalty <= 1e3 and skipped == call.pads)


def _take_drawn(items: list[Any]) -> dict[str, Any]:
    """Take the last processors from a list, as long as they are the engine's, and return their settings."""
    taken: dict[str, Any] = {}
    for kind, name in reversed(_DRAWN):
        if items and type(items[-1]) is kind and (value := _setting(items[-1], name)) is not None:
            taken[name] = value
            items.pop()
    return taken


def _setting(processor: Any, name: str) -> float | int | None:
    """Its value, None if the engine would not do just the same with it."""
    value = getattr(processor, name)
    plain = getattr(processor, "filter_value", -float("inf")) == -float("inf")
    if not plain or (name != "top_k" and getattr(processor, "min_tokens_to_keep", 1) != 1):
        return None
    allowed = {"temperature": value >= 1e-6, "top_p": value > 0}.get(name, True)
    return value if allowed else None


def _of_row(processor: Any, row: int) -> Any:
    ignored: Any = getattr(processor, "prompt_ignore_length", None)
    if not hasattr(ignored, "shape") or ignored.shape[0] == 1:
        return processor
    alone = copy.copy(processor)
    alone.prompt_ignore_length = ignored[row : row + 1]
    return alone


def seeds(seed: int | Seq[int] | None, rows: int) -> list[int]:
    """A seed for each row: ``seed`` + row, those of a list, or from torch's generator, which moves on.

    Raises ConfigurationError.
    """
    if seed is None:
        seed = int(torch.randint(0, 2**62, ()))
    given = listed(seed)
    whole = all(isinstance(value, int) and not isinstance(value, bool) for value in given)
    own = [seed + row for row in range(rows)] if whole and isinstance(seed, int) else given
    if not whole or not all(0 <= value < 2**64 for value in own):
        raise ConfigurationError(f"specee_seed={seed!r}: allowed are 0..{2**64 - 1}, or a list, one a row")
    if len(own) != rows:
        raise ConfigurationError(
            f"specee_seed has {len(own)} values for {rows} rows (num_return_sequences counts): "
            "give one for all, or one a row"
        )
    return own
