"""What a model said at every position of some texts, all its layers one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from specee.errors import ConfigurationError
from specee.policies import Latency
from specee.policies.published_del import SEED_POSITIONS

POSITIONS = SEED_POSITIONS
"""Latest positions of a prompt that are recorded: as many as any policy looks at."""

Tokens = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Text:
    """``tokens`` (length,): a prompt of ``prompt`` tokens, and what plain decoding continues it with.

    ``drafts`` and ``confidences`` (positions, layers) are of the latest positions that have a next token:
    what each layer would draft as the token after it, and the probability of that in the softmax of the
    layer's logits. The last layer's tokens are the full model's: the text itself, where it was generated.
    Raises ConfigurationError for shapes and values that cannot be.
    """

    tokens: Tokens
    prompt: int
    drafts: Tokens
    confidences: Floats

    def __post_init__(self) -> None:
        if (wrong := self._wrong()) is not None:
            raise ConfigurationError(f"a recorded text {wrong}: record it again")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def layers(self) -> int:
        """Of the model."""
        return int(self.drafts.shape[1])

    @property
    def generated(self) -> int:
        """Tokens without the prompt."""
        return len(self.tokens) - self.prompt

    @property
    def first(self) -> int:
        """The earliest position that is recorded."""
        return len(self.tokens) - 1 - len(self.drafts)

    @cached_property
    def matches(self) -> npt.NDArray[np.bool_]:
        """Where each layer agrees with the last one: (positions, layers)."""
        agree: npt.NDArray[np.bool_] = self.drafts == self.drafts[:, -1:]
        return agree

    @cached_property
    def words(self) -> tuple[int, ...]:
        """The tokens as Python's numbers."""
        return tuple(self.tokens.tolist())

    def _wrong(self) -> str | None:
        tokens, drafts, sure = self.tokens, self.drafts, self.confidences
        if tokens.ndim != 1 or drafts.ndim != 2 or drafts.shape != sure.shape or not drafts.shape[1]:
            return f"has shapes {tokens.shape}, {drafts.shape} and {sure.shape}, which do not belong together"
        if not 1 <= self.prompt < len(tokens):
            return f"of {len(tokens)} tokens has a prompt of {self.prompt}; allowed are 1..{len(tokens) - 1}"
        if not len(tokens) - self.prompt <= len(drafts) < len(tokens):
            return (
                f"of {len(tokens)} tokens, {self.prompt} of them prompt, has {len(drafts)} positions recorded"
            )
        if min(tokens.min(), drafts.min()) < 0 or not ((sure >= 0) & (sure <= 1.001)).all():
            return "holds a token or a confidence that is none"
        if not np.array_equal(drafts[-self.generated :, -1], tokens[self.prompt :]):
            return "is not what the last layer drafts"
        return None


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded texts of one model of ``layers`` layers, and what its steps cost on the machine.

    Raises ConfigurationError for no text, or texts of different models.
    """

    name: str
    layers: int
    latency: Latency
    texts: tuple[Text, ...]

    def __post_init__(self) -> None:
        if not self.texts:
            raise ConfigurationError(f"trace {self.name!r} has no texts: record one or more")
        if others := {text.layers for text in self.texts} - {self.layers}:
            raise ConfigurationError(
                f"trace {self.name!r} of a model of {self.layers} layers has texts of {sorted(others)} layers"
            )

    @property
    def generated(self) -> int:
        """Tokens of all texts without the prompts."""
        return sum(text.generated for text in self.texts)


def column(array: npt.NDArray[np.bool_] | Floats, layer: int) -> list[float]:
    """One layer's values as Python's, by position."""
    values: list[float] = array[:, layer - 1].tolist()
    return values
