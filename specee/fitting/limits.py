"""A bound on the memory of a fit: how much its stages may take in hand at a time.

What counts is what fitting holds beside the model: caches of the texts being written, states, the block with
its gradients and moments, activations. The sums are estimates from shapes, on the careful side; the
interpreter and its libraries, some hundred megabytes, are not in them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import accumulate, repeat, takewhile

from specee.errors import ConfigurationError
from specee.fitting.adapter_shapes import exit_layers, widths_of
from specee.types import ModelConfig

LONGEST = 512  # tokens of a text, more or less
_MOST_WORDS = 32_768  # of a draft vocabulary that is chosen here
_ROWS = 128  # whose logits are made at a time
_TRAINED = (
    40  # bytes a number: itself, its gradient, two moments; and all that once more on the way to a file
)
_MB = 1 << 20
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?B)?", re.IGNORECASE)
_UNITS = {"B": 1, "KB": 1 << 10, "MB": _MB, "GB": 1 << 30, "TB": 1 << 40}


@dataclass(frozen=True)
class Limits:
    """What is in hand at a time.

    ``width`` texts are written side by side, ``batch`` tokens trained on together; states are computed of
    ``chunk`` texts, and of ``look`` tokens those of all layers.
    """

    width: int = 32
    batch: int = 1024
    chunk: int = 64
    look: int = 1024


class Footprint:
    """Bytes that stages hold for a model; a drafter reads ``layers`` layers in ``steps`` unrolled steps.

    ``words`` of the draft vocabulary, None for as many as may be chosen.
    """

    def __init__(self, config: ModelConfig, layers: int, steps: int, words: int | None = None) -> None:
        self._config, self._layers, self._steps = config, layers, steps
        self._words = min(_MOST_WORDS if words is None else words, config.vocab_size)

    def stages(self, limits: Limits) -> dict[str, int]:
        """Of each stage at its most."""
        return {
            "texts": limits.width * self._sequence(),
            "states": self._states(limits),
            "training": self._fixed() + self._logits() + limits.batch * self._token() + self._opened(limits),
            "adapters": self._frozen() + self._adapters(limits.batch // 2) + self._logits(),
            "exits": self._frozen() + limits.look * self._looked_at(),
        }

    def most(self, limits: Limits) -> int:
        """Of the stage that holds most."""
        return max(self.stages(limits).values())

    def _sequence(self) -> int:
        """A text's cache in fp32, and its states."""
        config = self._config
        return 4 * LONGEST * (2 * config.num_layers * config.kv_dim + config.hidden_size)

    def _states(self, limits: Limits) -> int:
        """Eight texts pass at a time; a file's states are put together and copied once more."""
        each = 2 * (self._layers + 1) * self._config.hidden_size
        return min(limits.chunk, 8) * self._sequence() + 3 * limits.chunk * LONGEST * each

    def _opened(self, limits: Limits) -> int:
        return limits.batch * 6 * (self._layers + 1) * self._config.hidden_size

    def _frozen(self) -> int:
        """Embedding, head and last layer in fp32, and the head of the draft vocabulary."""
        config = self._config
        heads = 1 if config.tied_head else 2
        return (
            4 * heads * config.vocab_size * config.hidden_size
            + 4 * self._block()
            + 4 * self._words * config.hidden_size
        )

    def _block(self) -> int:
        """Numbers in one layer."""
        config = self._config
        attention = 2 * config.hidden_size * (config.q_dim + config.kv_dim)
        return attention + 3 * config.hidden_size * config.intermediate_size

    def _fixed(self) -> int:
        """The block as it is trained, and what is frozen."""
        hidden = self._config.hidden_size
        numbers = self._block() + hidden * hidden * (self._layers + 2)
        return self._frozen() + _TRAINED * numbers

    def _adapters(self, batch: int) -> int:
        """All that are trained side by side, and what they make of a batch."""
        config = self._config
        layers, widths = exit_layers(config.num_layers), widths_of(config.hidden_size)
        numbers = 2 * config.hidden_size * len(layers) * sum(widths)
        return _TRAINED * numbers + batch * 24 * config.hidden_size * len(layers) * len(widths)

    def _logits(self) -> int:
        """Of some rows, of two distributions, and what becomes of them."""
        return 4 * 4 * _ROWS * self._words

    def _token(self) -> int:
        """Activations that the backward pass needs."""
        config = self._config
        wide = 24 * config.hidden_size + 8 * config.intermediate_size + 6 * config.q_dim
        return self._steps * (5 * wide + 12 * config.num_heads * LONGEST)

    def _looked_at(self) -> int:
        """Keys, values and states of all layers."""
        config = self._config
        return 4 * config.num_layers * (2 * config.kv_dim + 2 * config.hidden_size)


LEAST = Limits(width=1, batch=LONGEST, chunk=1, look=LONGEST)


def within(footprint: Footprint, memory: int | None, batch: int) -> Limits:
    """The largest limits that hold no more than ``memory`` bytes; without a bound, the usual ones.

    ``batch``: tokens that are trained on together where there is room. Raises ConfigurationError where even
    the least take more.
    """
    usual = Limits(batch=batch)
    if memory is None:
        return usual
    least = Limits(LEAST.width, min(batch, LEAST.batch), LEAST.chunk, LEAST.look)
    if (needed := footprint.most(least)) > memory:
        stages = footprint.stages(least)
        stage = max(stages, key=lambda name: stages[name])
        raise ConfigurationError(
            f"memory={memory}: fitting this model takes {needed} bytes at least ({-(-needed // _MB)} MB, for "
            f"{stage}); allow as many, or fit a smaller model"
        )
    found = least
    for name in ("width", "batch", "chunk", "look"):
        sizes = _between(getattr(least, name), getattr(usual, name))
        able = [size for size in sizes if footprint.most(_with(found, name, size)) <= memory]
        found = _with(found, name, able[-1])
    return found


def bytes_of(memory: int | str) -> int:
    """A number of bytes, or a text such as "512MB" or "1.5 GB". Raises ConfigurationError."""
    found = _SIZE.fullmatch(str(memory).strip())
    size = 0 if found is None else int(float(found[1]) * _UNITS[(found[2] or "B").upper()])
    if size <= 0 or isinstance(memory, bool):
        raise ConfigurationError(f"memory={memory!r}: allowed are bytes, or sizes such as 512MB and 1.5GB")
    return size


def _between(least: int, most: int) -> list[int]:
    """Doubling from the one to the other, both among them."""
    steps = takewhile(
        lambda size: size < most, accumulate(repeat(2), lambda size, two: size * two, initial=least)
    )
    return [*steps, most]


def _with(limits: Limits, name: str, size: int) -> Limits:
    return replace(limits, **{name: size})
