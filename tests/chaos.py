"""An adversarial policy and a draft source to go with it: anything a plan may say, in random order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from specee.clock import Clock
from specee.drafting import DraftTree, States
from specee.policies import (
    Draft,
    DraftCost,
    DrafterBlock,
    DrafterTree,
    ExitLayer,
    ModelView,
    Needs,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    PredictedExit,
    PredictedTree,
    SequenceView,
    Shadow,
    Speculate,
)


@dataclass(frozen=True)
class Grown:
    """A random tree, of which some nodes carry the tokens that plain decoding gives."""

    seed: int


class Grower:
    """Drafts random trees. ``answers`` has what plain decoding gives each sequence after its prompt."""

    def __init__(self, answers: Mapping[int, Sequence[int]], prompts: Mapping[int, int], vocab: int) -> None:
        self._answers, self._prompts, self._vocab = answers, prompts, vocab

    def check(self, source: object) -> None:
        """Any will do."""

    def cost(self, source: object) -> DraftCost:
        return DraftCost(0, 0.0)

    def reads(self, source: object) -> States:
        return States()

    def draft(self, trees: Sequence[DraftTree], clock: Clock) -> None:
        """Nodes below random nodes; half of them with the right token for their depth."""
        for tree in trees:
            rng = np.random.default_rng(tree.draft.source.seed)  # type: ignore[union-attr]
            depth, index = [0], tree.draft.sequence
            done = len(tree.text) - self._prompts[index]
            for _ in range(tree.draft.length):
                node = int(rng.integers(0, len(tree.slots)))
                right = self._answers[index][done + depth[node] :]
                known = bool(right) and rng.random() < 0.7
                token = int(right[0] if known else rng.integers(0, self._vocab))
                if tree.child(node, token) is None and tree.tokens[node] not in tree.ends:
                    tree.graft([token], None, node, [float(rng.random())])
                    depth.append(depth[node] + 1)
            tree.close()


class Chaos:
    """Any exit layer, length, stop, source and subset of sequences. ``right`` makes it use :class:`Grown`
    too.
    """

    name = "chaos"

    def __init__(self, seed: int, *, grown: bool, adapted: bool = False) -> None:
        self._seed, self._grown, self._adapted = seed, grown, adapted
        self.rounds = 0

    def begin(self, model: ModelView) -> Needs:
        self._model, self._layers = model, model.layers
        self._rng = np.random.default_rng(self._seed)
        return Needs((), tuple(range(1, model.layers + 1)), int(self._rng.integers(1, 7)))

    def plan(self, observation: Observation) -> Plan:
        views = [view for view in observation.sequences if self._rng.random() < 0.8] or list(
            observation.sequences[:1]
        )
        shadows = self._shadows(observation)
        if self._rng.random() < 0.15:
            return NextToken(tuple(view.id for view in views), shadows, self._turns())
        order = [views[i] for i in self._rng.permutation(len(views))]
        return Speculate(tuple(self._draft(view) for view in order), shadows, self._turns())

    def _turns(self) -> int:
        return int(self._rng.integers(1, 6))

    def _draft(self, view: SequenceView) -> Draft:
        known = () if self._model.exits is None else self._model.exits.layers
        return Draft(
            view.id,
            self._source(),
            int(self._rng.integers(0, min(view.remaining, 8))),
            float(self._rng.choice([0.0, 0.05, 0.3, 1.0])),
            self._draft(view) if self._rng.random() < 0.3 else None,
            tuple(layer for layer in known if self._rng.random() < 0.7),
            float(self._rng.choice([0.0, 0.02, 0.5])),
        )

    def _shadows(self, observation: Observation) -> tuple[Shadow, ...]:
        """Of any sequence, also of those that have no part in the step, at any layers."""
        shadows = []
        for view in observation.sequences:
            for adapted in (False, True) if self._adapted else (False,):
                able = [layer for layer, _ in self._model.adapted] if adapted else range(1, self._layers)
                chosen = tuple(layer for layer in able if self._rng.random() < 0.5)
                if chosen and self._rng.random() < 0.4:
                    positions = None if self._rng.random() < 0.5 else int(self._rng.integers(1, 9))
                    shadows.append(Shadow(view.id, chosen, positions, adapted))
        return tuple(shadows)

    def _source(self) -> object:
        if self._model.exits is not None and self._rng.random() < 0.25:
            return PredictedExit(float(self._rng.choice([0.0, 0.3, 0.9])))
        if self._model.exits is not None and self._rng.random() < 0.2:
            limits = self._rng.integers(1, 5, 3).tolist()
            return PredictedTree(*limits, threshold=float(self._rng.choice([0.0, 0.3, 0.9])))
        if self._model.drafter is not None and self._rng.random() < 0.3:
            return (
                DrafterTree(*self._rng.integers(1, 5, 3).tolist())
                if self._rng.random() < 0.5
                else DrafterBlock()
            )
        kind = self._rng.integers(0, 3 if self._grown else 2)
        if kind == 0 and self._layers > 1:
            adapted = self._adapted and bool(self._rng.random() < 0.5)
            return ExitLayer(int(self._rng.integers(1, self._layers)), adapted)
        if kind == 2:
            return Grown(int(self._rng.integers(0, 2**31)))
        shortest = int(self._rng.integers(1, 3))
        return NgramLookup(shortest + int(self._rng.integers(0, 2)), shortest)

    def observe(self, outcome: Outcome) -> None:
        self.rounds += len(outcome.rounds)
