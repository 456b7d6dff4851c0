"""DEL as its authors published it, for comparison: layers are its unit of cost, and it never steps aside.

Entezari Zarch et al., "DEL: Context-aware dynamic exit layer for efficient self-speculative decoding", 2025.
After every round all layers are looked at, at every position that was verified; counts of right and wrong
tokens decay by 0.95 a round. The exit layer is that of the largest tokens per layer,
(1 - a^(d+1)) / (1 - a) / (L + d l), over layers l and lengths d; drafting stops after a token less sure than
the layer's threshold.
"""

from __future__ import annotations

from specee.policies.evidence import Evidence
from specee.policies.objective import LONGEST
from specee.policies.plans import (
    Draft,
    ExitLayer,
    ModelView,
    Needs,
    NgramLookup,
    Observation,
    Outcome,
    Shadow,
    Speculate,
)

SEED_POSITIONS = 32
"""Latest positions of the prompt that seed the counts."""
_MOST_DRAFTS = LONGEST + 1


class PublishedDel:
    """Exit layer by tokens per layer, length by the confidence threshold."""

    def __init__(self, name: str) -> None:
        self.name = name

    def begin(self, model: ModelView) -> Needs:
        """Forget all counts; a model of one layer is decoded plainly."""
        self._layers = model.layers
        self._looked = tuple(range(1, model.layers))
        self._states: dict[int, _State] = {}
        if not self._looked:
            return Needs()
        kept = (*self._looked, model.layers)
        return Needs(tuple([ExitLayer(layer) for layer in self._looked]), kept, SEED_POSITIONS)

    def plan(self, observation: Observation) -> Speculate:
        """Draft at each sequence's own layer; look at all layers."""
        drafts, shadows = [], []
        for view in observation.sequences:
            state = self._state(view.id)
            if self._looked:
                shadows.append(Shadow(view.id, self._looked, SEED_POSITIONS if view.fresh else None))
            if view.fresh or not self._looked:
                drafts.append(Draft(view.id, NgramLookup(), 0))
                continue
            layer, length, threshold = state.choice()
            drafts.append(Draft(view.id, ExitLayer(layer), min(length, view.remaining - 1), threshold))
        return Speculate(tuple(drafts), tuple(shadows))

    def observe(self, outcome: Outcome) -> None:
        """Count."""
        for entry in outcome.rounds:
            self._state(entry.sequence).rounds += 1
        for seen in outcome.shadows:
            state = self._states[seen.sequence]
            state.evidence[seen.layer].add(seen.matches, seen.confidences, state.rounds)

    def _state(self, sequence: int) -> _State:
        if sequence not in self._states:
            self._states[sequence] = _State(self._layers)
        return self._states[sequence]


class _State:
    """Of one sequence."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self.rounds = 0
        self.evidence = {layer: Evidence() for layer in range(1, layers)}

    def choice(self) -> tuple[int, int, float]:
        """Exit layer, most drafts, and the confidence to stop below: one token at layer 1 to begin with."""
        if not any(one.seen for one in self.evidence.values()):
            return 1, 1, 0.0
        layer = max(self.evidence, key=self._tokens_per_layer)
        return layer, _MOST_DRAFTS, self.evidence[layer].threshold

    def _tokens_per_layer(self, layer: int) -> float:
        """The most over all lengths: it rises to one peak."""
        rate = self.evidence[layer].raw_rate
        tokens, power, best = 1.0, 1.0, 1.0 / self._layers
        for length in range(1, LONGEST + 1):
            power *= rate
            tokens += power
            value = tokens / (self._layers + length * layer)
            if value < best:
                break
            best = value
        return best
