"""LayerSkip's self-speculation: shallow layers draft, always the same number of tokens, the rest verify.

Elhoushi et al., "LayerSkip: Enabling early exit inference and self-speculative decoding", ACL 2024.
"""

from __future__ import annotations

from specee.policies import settings
from specee.policies.exits import Exit
from specee.policies.plans import ModelView, Needs, Observation, Outcome, Speculate
from specee.policies.rounds import ANY_TURNS, speculate


class LayerSkip:
    """Static exit layer and speculation length.

    ``exit_layer`` counts layers from 1 and is below the model's number of layers; None is four fifths of
    them. ``speculation_length``: tokens drafted a round, 0 drafts nothing. ``adapted``: through the adapter
    and draft vocabulary of the loaded speculator. Raises ConfigurationError.
    """

    name = "layerskip"

    def __init__(
        self, exit_layer: int | None = None, speculation_length: int = 3, *, adapted: bool = False
    ) -> None:
        self._exit = Exit(self.name, exit_layer, adapted)
        self._length = settings.whole(self.name, "speculation_length", speculation_length, 0)

    def begin(self, model: ModelView) -> Needs:
        """Find the exit layer. Raises ConfigurationError if the model has none such below its last."""
        self._source = self._exit.source(model.layers)
        self._latest: Speculate | None = None
        return Needs((self._source,))

    def plan(self, observation: Observation) -> Speculate:
        """The same for everyone, always."""
        self._latest = speculate(
            observation, self._source, lambda _: self._length, latest=self._latest, turns=ANY_TURNS
        )
        return self._latest

    def observe(self, outcome: Outcome) -> None:
        """Nothing to learn: the setting is static."""
