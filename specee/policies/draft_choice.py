"""What one sequence drafts next, and what it looks at to know better: every source by the same objective."""

from __future__ import annotations

from collections.abc import Mapping

from specee.policies.block_choice import BlockChoice
from specee.policies.exit_choice import NEAR, ExitChoice, ExitPlan
from specee.policies.lookup_choice import LookupChoice
from specee.policies.objective import Objective
from specee.policies.plans import (
    Draft,
    DrafterBlock,
    DrafterTree,
    ExitLayer,
    NgramLookup,
    PredictedExit,
    PredictedTree,
    Round,
    SequenceView,
    Shadow,
    ShadowTokens,
)
from specee.policies.predicted_choice import PredictedChoice
from specee.policies.rounds import ASKING_TURNS, FEW_TURNS
from specee.policies.shadow_budget import ShadowBudget
from specee.policies.tree_choice import TreeChoice

POSITIONS, LAYERS = 4, 4
"""Most positions and layers of one look: about as many states as pass a head cheaply."""
_GAIN = 1.03  # what drafting has to promise before it begins; to go on, it must not lose
_OF_BLOCK = (DrafterBlock, DrafterTree, PredictedTree)
_TOKENS = 4  # of a round; what was seen before more of them is as old as if it were before more rounds
_BETTER = 1.02  # what a look has to promise over what is drafted already
_RIGHT = 2  # what a round in which drafts were right counts beside one in which none were
_STEADY = 8  # rounds in which what is thought of copies hardly changes while there are none
# Rounds between looks: where drafting pays, or nearly; and elsewhere, ever longer.
_SHORT_PAUSE, _PAUSE, _LONGEST_PAUSE = 4, 8, 128


class DraftChoice:
    """Of one sequence.

    ``exits``: by whether they are adapted; ``lookup``: None where nothing is copied; ``block`` and ``trees``,
    the block's chains and its trees, and ``predicted``, drafts by exit predictors: None without.
    """

    def __init__(
        self,
        exits: Mapping[bool, ExitChoice],
        lookup: tuple[NgramLookup, LookupChoice] | None,
        block: BlockChoice | None = None,
        trees: TreeChoice | None = None,
        predicted: PredictedChoice | None = None,
        *,
        sampled: bool,
    ) -> None:
        self._exits = exits
        self._lookup = lookup
        self._block = block
        self._trees = trees
        self._predicted = predicted
        self._predicting = False  # whether predictors are to draft in this round
        self._beside = 1.0  # value of the best there is beside exit layers, plain decoding included
        self._value = 0.0  # of what is drafted, copies aside; 0 if nothing is
        self._exits_draft = False  # whether that is an exit layer: only then others are likely to be better
        self._sampled = sampled
        self._budget = ShadowBudget()
        self._drafting: tuple[bool, ExitPlan] | None = None
        self._now = 0.0  # rounds, a long one counting as several
        self._look_at = 0.0
        self._pause = _PAUSE
        self._looked = 0  # length of the text then
        self._looking = False  # whether that look is to come: after the round that is planned
        self._looked_adapted = False
        self._latest: Round | None = None
        self._maker: object = None  # of what is drafted, copies aside
        self._most_turns = FEW_TURNS  # that what is drafted may be kept for
        self._asking = False  # whether predictors have a part in it
        self._proved = 0  # its rounds in which drafts were right, less those in which none were
        self._near = False  # whether the best layer known is worth about what is done without it, or more

    def draft(self, view: SequenceView, objective: Objective, layers: tuple[int, ...] = ()) -> Draft | None:
        """The drafts of the next round; None where plain decoding is worth more.

        ``layers``: where predictors are to be asked, if they are.
        """
        self._predicting = self._looking = False
        room = view.remaining - 1
        if room < 1:
            return None
        self._drafting = self._exit(objective)
        draft, value = None, 1.0
        beside = 1.0
        if self._drafting is not None:
            adapted, plan = self._drafting
            source = ExitLayer(plan.layer, adapted)
            draft, value = Draft(view.id, source, min(plan.length, room), plan.stop_below), plan.value
        if self._block is not None:
            chain = self._block.best(objective, self._now)
            beside = max(beside, chain.value)
            if chain.value > value:
                length = min(chain.length, room)
                draft, value = Draft(view.id, DrafterBlock(), length, chain.stop_below), chain.value
        if self._trees is not None:
            tree = self._trees.best(objective, self._now)
            beside = max(beside, tree.value)
            if tree.value > value:
                nodes, value = min(tree.nodes, room), tree.value
                tree_of = PredictedTree() if tree.pruned else DrafterTree()
                asked, deepen = layers if tree.pruned else (), tree.deepen_from
                draft = Draft(view.id, tree_of, nodes, tree.stop_below, layers=asked, deepen_from=deepen)
        if self._predicted is not None:
            left = self._predicted.best(objective, self._now)
            beside = max(beside, left.value)
            if left.value > max(value, _GAIN):
                length, value = min(left.length, room), left.value
                draft, self._predicting = Draft(view.id, PredictedExit(), length, layers=layers), True
        self._settle(draft)
        self._value = 0.0 if draft is None else value
        self._beside = beside
        if self._lookup is not None:
            copies, choice = self._lookup
            copy = choice.best(objective, self._now)
            if copy.value > value:
                return Draft(view.id, copies, min(copy.length, room), 0.0, draft)
        return draft

    def _settle(self, draft: Draft | None) -> None:
        """Note what drafts, copies aside. A new source has to prove itself, and every exit layer is one."""
        kind = None if draft is None else type(draft.source)
        self._exits_draft = kind is ExitLayer
        self._asking = kind in (PredictedTree, PredictedExit)
        maker: object = DrafterBlock if kind in _OF_BLOCK else kind
        length = 0
        if draft is not None and self._exits_draft:
            maker, length = draft.source, draft.length
        self._most_turns = max(1, FEW_TURNS * _TOKENS // (length + 1))  # time for looks between long rounds
        if maker != self._maker:
            self._maker, self._proved = maker, 0

    def look(self, view: SequenceView, objective: Objective, seconds: Objective) -> Shadow | None:
        """Layers to look at in the next round; ``seconds`` is the objective in measured time."""
        if not self._sampled:
            adapted, choice = next(iter(self._exits.items()))
            return Shadow(view.id, choice.layers, None, adapted)
        if self._now < self._look_at or view.length < self._looked + POSITIONS:
            return None
        most = self._affordable(view, seconds)
        if most == 0:
            self._look_at = self._now + _SHORT_PAUSE
            return None
        for adapted, choice in sorted(self._exits.items(), key=self._latest_look):
            if layers := self._promising(choice, objective, most):
                self._looked, self._looked_adapted, self._looking = view.length, adapted, True
                self._wait()
                return Shadow(view.id, layers, POSITIONS, adapted)
        self._wait()
        return None

    def _wait(self) -> None:
        """Where drafting pays, or nearly, the budget is what limits looks."""
        if self._near:
            self._look_at = self._now + _SHORT_PAUSE
        else:
            self._look_at = self._now + self._pause
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)

    def learn(self, entry: Round) -> None:
        """What came of the drafts of a round."""
        self._latest = entry
        self._now += max(1.0, len(entry.tokens) / _TOKENS)
        if self._looking:
            self._looked += len(entry.tokens)
        if self._maker is not None and not _copied(entry):
            proved = self._proved + (_RIGHT if entry.accepted else -1)
            self._proved = max(0, min(proved, _RIGHT * (FEW_TURNS - 1)))
        if self._predicting and self._predicted is not None and not _copied(entry):
            self._predicted.learn(entry, self._now)
            return
        if not entry.drafted and not entry.pruned:
            return
        if _copied(entry):
            if self._lookup is not None:
                self._lookup[1].learn(entry.drafted, entry.accepted, self._now)
            return
        if isinstance(entry.source, DrafterTree):
            if self._trees is not None:
                self._trees.learn_round(entry, self._now)
            return
        self._learn_chain(entry)

    def _learn_chain(self, entry: Round) -> None:
        matches = [True] * entry.accepted + [False] * (entry.accepted < entry.drafted)
        confidences = entry.confidences[: len(matches)]
        if isinstance(entry.source, DrafterBlock):
            if self._block is not None:
                self._block.learn(matches, confidences, self._now)
        elif isinstance(entry.source, ExitLayer) and self._sampled:  # else among the shadows
            exits = self._exits[entry.source.adapted]
            if exits.learn(entry.source.layer, matches, confidences, self._now, entry.drafted):
                self._proved, self._look_at = 0, self._now  # something else may be right now

    @property
    def quiet(self) -> int:
        """Rounds in which the same will be planned while nothing is drafted; 0 if that cannot be said."""
        if self._value > 0 or not self._sampled:
            return 0
        rounds = int(self._look_at - self._now)
        return rounds if self._lookup is None else min(rounds, _STEADY)

    @property
    def settled(self) -> int:
        """Rounds that a plan is good for: one while its source is on trial, more as it proves to be right."""
        turns = min(1 + self._proved // _RIGHT, self._most_turns)
        return min(turns, ASKING_TURNS) if self._asking else turns

    @property
    def failed(self) -> bool:
        """Whether what drafts has lost all that it had proved."""
        return self._maker is not None and not self._proved

    def skip(self, rounds: int, seconds: float) -> None:
        """Quiet rounds have passed."""
        self._now += rounds
        self._budget.note(seconds, 0.0, drafting=False)

    def see(self, shadow: ShadowTokens) -> None:
        """What a layer would have drafted, or has, up to the first that was wrong."""
        latest, drafted = self._latest, None
        if latest is not None and latest.source == ExitLayer(shadow.layer, shadow.adapted):
            drafted = latest.drafted
        self._exits[shadow.adapted].learn(
            shadow.layer, shadow.matches, shadow.confidences, self._now, drafted
        )

    def note(self, seconds: float, shadow: float) -> None:
        """How long the round took, and its shadow tokens in that time."""
        self._budget.note(seconds, shadow, drafting=self._exits_draft)

    def _exit(self, objective: Objective) -> tuple[bool, ExitPlan] | None:
        best: tuple[bool, ExitPlan] | None = None
        for adapted, choice in self._exits.items():
            plan = choice.best(objective, self._now)
            if plan is not None and (best is None or plan.value > best[1].value):
                best = adapted, plan
        near = best is not None and best[1].value > NEAR * self._beside
        if near is not self._near:
            self._look_at, self._pause = self._now, _PAUSE  # more is to be found: beside it, or elsewhere
        self._near = near
        needed = _GAIN if self._drafting is None else 1.0
        return best if best is not None and best[1].value > needed else None

    def _promising(self, choice: ExitChoice, objective: Objective, most: int) -> tuple[int, ...]:
        """At most so many layers that may beat what is drafted now."""
        return choice.worth_a_look(objective, self._now, max(_GAIN, _BETTER * self._value), most)

    def _latest_look(self, exits: tuple[bool, ExitChoice]) -> bool:
        """Sorts those that the latest look was at behind the others, so that all have their turn."""
        return exits[0] is self._looked_adapted

    def _affordable(self, view: SequenceView, objective: Objective) -> int:
        """How many layers the budget allows a look at; within a prompt the full model has to be asked too."""
        coming = view.remaining * objective.plain / objective.sequences  # a step is all sequences' together
        left = self._budget.left(coming, near=self._near)
        for layers in range(LAYERS, 0, -1):
            if objective.shadow_seconds(POSITIONS * (layers + view.fresh)) <= left:
                return layers
        return 0


def _copied(entry: Round) -> bool:
    """Whether its drafts are of the text."""
    return isinstance(entry.source, NgramLookup)
