"""Weights of planted models (:mod:`bench.planted_truth`) on a device, made where they stay.

``decode/planted_models.py`` scales the later layers of a GGUF file, through numpy on the host: of 7 B there
would have to be a file, and 14 GB to write and to read. Of random weights treated like that it would be known
only that later layers do little. Here the residual stream has segments of its own for what is planted::

    embedding    [ code of guess 0 | code of guess 1 | ... | code of the truth | nothing | 1 ]
    behind stage [ as before                                                   | answer  | 1 ]
    head         [ nothing                                                     | codes   | 0 ]

A token's code is a row of random signs. The last layer of each stage adds its segment of the embedding to the
answer, stronger than all stages before it did: its feed-forward part is such a copy, whose gates the 1 at the
end holds open. All other layers are random and add little. So every layer costs what it would, and what an
exit says is known for each token and layer.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specee.errors import ConfigurationError
from specee.models import table
from specee.types import ModelConfig

from .cuda_random import random_weights
from .planted_truth import Truth

if TYPE_CHECKING:
    import torch

FACTOR = 2.0**-6
"""Of what random layers add: together about a twentieth of what the embedding has."""
LOGIT = 20.0
"""Of the token that the first stage guesses; all others are near 0. Later stages about double it."""
_GROWTH = 4.0  # of an answer from stage to stage: the latest one outweighs those before it together
_OPEN = 32.0  # what gates are held open by, times what the norm leaves of the 1: silu(x) is x there


@dataclass(frozen=True)
class Places:
    """Where in the residual stream is what; ``stages`` counts the last one, all layers."""

    hidden: int
    stages: int

    @property
    def width(self) -> int:
        """Of a code."""
        return (self.hidden - 1) // (self.stages + 1)

    def guess(self, stage: int) -> slice:
        """The codes of a stage's guess."""
        return slice(stage * self.width, (stage + 1) * self.width)

    @property
    def answer(self) -> slice:
        """What the head reads."""
        return self.guess(self.stages)

    @property
    def one(self) -> int:
        """The number that is the same for all tokens."""
        return self.hidden - 1


@dataclass(frozen=True)
class PlantedWeights:
    """A model in which :meth:`show` can plant; ``layers``: of each stage but the last, which is all of them.

    ``codes`` (2 vocab, width): of each token, and as many that belong to none.
    """

    config: ModelConfig
    layers: tuple[int, ...]
    weights: dict[table.Key, Any]
    codes: torch.Tensor

    @property
    def places(self) -> Places:
        """Where it has what."""
        return Places(self.config.hidden_size, len(self.layers) + 1)

    def show(self, truth: Truth) -> None:
        """Plant: the embedding is written anew where it is, and so is all that depends on the truth."""
        import torch

        embedding, places = self.weights["embed", -1], self.places
        for stage, guesses in enumerate(truth.guesses):
            which = torch.from_numpy(guesses).to(embedding.device)
            embedding[:, places.guess(stage)] = self.codes[which]


def planted_weights(config: ModelConfig, layers: Seq[int], device: str, seed: int) -> PlantedWeights:
    """A model without a truth yet, in bf16, with the same numbers for the same seed and kind of device.

    Raises ConfigurationError for layers or a shape that nothing can be planted in.
    """
    _check(config, layers)
    weights = random_weights(config, device, seed=seed)
    for (role, _), values in weights.items():
        if role in ("o", "down"):
            values.mul_(FACTOR)
    made = PlantedWeights(config, tuple(layers), weights, _codes(config, len(layers) + 1, device, seed))
    _reveal(made)
    for role in ("embed", "head"):
        weights[role, -1].zero_()
    weights["embed", -1][:, made.places.one] = 1
    weights["head", -1][:, made.places.answer] = made.codes[: config.vocab_size] * (LOGIT / made.places.width)
    return made


def _check(config: ModelConfig, layers: Seq[int]) -> None:
    if (
        not layers
        or sorted(set(layers)) != list(layers)
        or not 1 <= layers[0] <= layers[-1] < config.num_layers
    ):
        raise ConfigurationError(
            f"stages that end after layers {tuple(layers)}: allowed are 1..{config.num_layers - 1}, one or "
            "more, ascending"
        )
    width = Places(config.hidden_size, len(layers) + 1).width
    if config.tied_head or config.mlp_bias or width > config.intermediate_size:
        raise ConfigurationError(
            f"a model with tied_head={config.tied_head}, mlp_bias={config.mlp_bias} and "
            f"intermediate_size={config.intermediate_size}: planting needs a head of its own, feed-forward "
            f"parts without biases, and {width} of intermediate_size or more"
        )


def _codes(config: ModelConfig, stages: int, device: str, seed: int) -> torch.Tensor:
    """Random signs."""
    import torch

    shape = (2 * config.vocab_size, Places(config.hidden_size, stages).width)
    generator = torch.Generator(device).manual_seed(seed + 1)
    drawn = torch.randint(0, 2, shape, generator=generator, dtype=torch.int8, device=device)
    return (2 * drawn - 1).to(torch.bfloat16)


def _reveal(made: PlantedWeights) -> None:
    """Have the last layer of each stage add its guess to the answer.

    A gate gives ``_OPEN / rms`` and the part beside it ``code / rms``: what goes down makes up for both.
    """
    import torch

    places, width = made.places, made.places.width
    energy = (places.stages * width + 1) / places.hidden  # mean square of the residual stream
    for stage, layers in enumerate((*made.layers, made.config.num_layers)):
        gate, up, down = (made.weights[role, layers - 1] for role in ("gate", "up", "down"))
        copied = torch.eye(width, dtype=gate.dtype, device=gate.device)
        added = _GROWTH**stage
        for matrix in (gate, up, down):
            matrix.zero_()
        gate[:width, places.one] = _OPEN
        up[:width, places.guess(stage)] = copied
        down[places.answer, :width] = copied * (added * energy / _OPEN)
        energy += width * added**2 / places.hidden
