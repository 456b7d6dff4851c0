"""What one sequence drafts next, and what it looks at to know better: every source by the same objective."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from specee.policies.block_choice import BlockChoice
from specee.policies.lookup_choice import LookupChoice
from specee.policies.objective import LONGEST, POSITIONS, Objective
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
from specee.policies.rounds import ASKING_TURNS, FEW_TURNS, STEADY_TURNS
from specee.policies.tree_choice import TreeChoice

if TYPE_CHECKING:
    from specee._cpu import ExitDrafts

GAIN = 1.03
"""What drafting has to promise before it begins; to go on, it must not lose."""
_TREE_GAIN = 1.05
"""The same of a tree where a chain of the same block would draft: the larger of two guesses is mostly the one
that is too large, and chains are simpler."""
_OF_BLOCK = (DrafterBlock, DrafterTree, PredictedTree)
_TOKENS = 4  # of a round; what was seen before more of them is as old as if it were before more rounds
# Rounds that a plan may be kept for, by its drafts: time for looks between long ones.
_TURNS = tuple([max(1, FEW_TURNS * _TOKENS // (length + 1)) for length in range(LONGEST + 1)])
_RIGHT = 2  # what a round in which drafts were right counts beside one in which none were
_STEADY = 8  # rounds in which what is thought of copies hardly changes while there are none


class DraftChoice:
    """Of one sequence.

    ``exits``: where exit layers draft, and when others are looked at: the native part of the decision.
    ``all_layers``: the kind of heads and the layers that are looked at in every round; None where shadow
    tokens are sampled. ``lookup``: None where nothing is copied; ``block`` and ``trees``, the block's chains
    and its trees, and ``predicted``, drafts by exit predictors: None without.
    """

    def __init__(
        self,
        exits: ExitDrafts,
        lookup: tuple[NgramLookup, LookupChoice] | None,
        block: BlockChoice | None = None,
        trees: TreeChoice | None = None,
        predicted: PredictedChoice | None = None,
        *,
        all_layers: tuple[bool, tuple[int, ...]] | None = None,
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
        self._all_layers = all_layers
        self._now = 0.0  # rounds, a long one counting as several
        self._looking = False  # whether a look is to come: after the round that is planned
        self._latest: Round | None = None
        self._maker: object = None  # of what is drafted, copies aside
        self._most_turns = FEW_TURNS  # that what is drafted may be kept for
        self._asking = False  # whether predictors have a part in it
        self._proved = 0  # its rounds in which drafts were right, less those in which none were

    def draft(self, view: SequenceView, objective: Objective, layers: tuple[int, ...] = ()) -> Draft | None:
        """The drafts of the next round; None where plain decoding is worth more.

        ``layers``: where predictors are to be asked, if they are.
        """
        self._predicting = self._looking = False
        room = view.remaining - 1
        if room < 1:
            return None
        draft, value, beside = None, 1.0, 1.0
        exits = self._exits.draft(objective.native, self._now, self._beside)
        if exits is not None:
            adapted, layer, length, stop_below, value = exits
            draft = Draft(view.id, _exit_layer(adapted, layer), min(length, room), stop_below)
        if self._block is not None:
            chain = self._block.best(objective, self._now)
            beside = max(beside, chain.value)
            if chain.value > value:
                length = min(chain.length, room)
                draft, value = Draft(view.id, DrafterBlock(), length, chain.stop_below), chain.value
        if self._trees is not None:
            tree = self._trees.best(objective, self._now)
            beside = max(beside, tree.value)
            chained = draft is not None and type(draft.source) is DrafterBlock
            if tree.value > (_TREE_GAIN * value if chained else value):
                nodes, value = min(tree.nodes, room), tree.value
                tree_of = PredictedTree() if tree.pruned else DrafterTree()
                asked, deepen = layers if tree.pruned else (), tree.deepen_from
                draft = Draft(view.id, tree_of, nodes, tree.stop_below, layers=asked, deepen_from=deepen)
        if self._predicted is not None:
            left = self._predicted.best(objective, self._now)
            beside = max(beside, left.value)
            if left.value > max(value, GAIN):
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
        maker: object = None
        length = 0
        self._exits_draft = self._asking = False
        if draft is not None:
            maker = kind = type(draft.source)
            if kind is ExitLayer:
                maker, length, self._exits_draft = draft.source, draft.length, True
            elif kind in _OF_BLOCK:
                maker, self._asking = DrafterBlock, kind is PredictedTree
            else:
                self._asking = kind is PredictedExit
        self._most_turns = _TURNS[length]
        if maker != self._maker:
            self._maker, self._proved = maker, 0

    def look(self, view: SequenceView, objective: Objective, seconds: Objective) -> Shadow | None:
        """Layers to look at in the next round; ``seconds`` is the objective in measured time."""
        if self._all_layers is not None:
            adapted, layers = self._all_layers
            return Shadow(view.id, layers, None, adapted)
        found = self._exits.look(
            objective.native,
            seconds.native,
            view.length,
            view.remaining,
            view.fresh,
            self._now,
            self._value,
        )
        if found is None:
            return None
        self._looking = True
        return Shadow(view.id, found[1], POSITIONS, found[0])

    def learn(self, entry: Round) -> None:
        """What came of the drafts of a round."""
        self._latest = entry
        self._now += max(1.0, len(entry.tokens) / _TOKENS)
        if self._looking:
            self._exits.saw(len(entry.tokens))
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
        elif isinstance(entry.source, ExitLayer) and self._all_layers is None:  # else among the shadows
            source = entry.source
            if self._exits.learn(
                source.adapted, source.layer, matches, confidences, self._now, entry.drafted
            ):
                self._proved = 0

    @property
    def quiet(self) -> int:
        """Rounds in which the same will be planned while nothing is drafted; 0 if that cannot be said."""
        if self._value > 0 or self._all_layers is not None:
            return 0
        rounds = int(self._exits.look_at - self._now)
        return rounds if self._lookup is None else min(rounds, _STEADY)

    @property
    def settled(self) -> int:
        """Rounds that a plan is good for: one while its source is on trial, more as it proves to be right."""
        turns = min(1 + self._proved // _RIGHT, self._most_turns)
        if self._asking:
            return min(turns, ASKING_TURNS)
        # Chains and trees of one block are worth nearly the same, and whether they are right is seen anyway.
        return STEADY_TURNS if turns == FEW_TURNS and self._maker is DrafterBlock else turns

    @property
    def failed(self) -> bool:
        """Whether what drafts has lost all that it had proved."""
        return self._maker is not None and not self._proved

    def skip(self, rounds: int, seconds: float) -> None:
        """Quiet rounds have passed."""
        self._now += rounds
        self._exits.note(seconds, 0.0, False)

    def see(self, shadow: ShadowTokens) -> None:
        """What a layer would have drafted, or has, up to the first that was wrong."""
        latest, drafted = self._latest, None
        if latest is not None and latest.source == ExitLayer(shadow.layer, shadow.adapted):
            drafted = latest.drafted
        self._exits.see(shadow.adapted, shadow.layer, shadow.matches, shadow.confidences, self._now, drafted)

    def note(self, seconds: float, shadow: float) -> None:
        """How long the round took, and its shadow tokens in that time."""
        self._exits.note(seconds, shadow, self._exits_draft)


@cache
def _exit_layer(adapted: bool, layer: int) -> ExitLayer:
    """One object each: there are few, and plans that name one are many."""
    return ExitLayer(layer, adapted)


def _copied(entry: Round) -> bool:
    """Whether its drafts are of the text."""
    return isinstance(entry.source, NgramLookup)
