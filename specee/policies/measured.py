"""What policies with a measured objective share: a choice for each sequence, one plan for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from specee.errors import ConfigurationError
from specee.policies.block_choice import BlockChoice
from specee.policies.chain_cost import ChainCost
from specee.policies.draft_choice import GAIN, DraftChoice
from specee.policies.exit_schedule import ExitSchedule
from specee.policies.latency import Latency
from specee.policies.lookup_choice import LookupChoice
from specee.policies.objective import LONGEST, POSITIONS, Objective, objective_of
from specee.policies.plans import (
    Draft,
    DrafterBlock,
    DrafterTree,
    DraftSource,
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
from specee.policies.predicted_choice import PredictedChoice, PredictedCost
from specee.policies.prune_cost import PruneCost
from specee.policies.rounds import ANY_TURNS
from specee.policies.tree_choice import TreeChoice

if TYPE_CHECKING:
    from specee._cpu import ExitDrafts

_LAYERS_ALONE = Latency((1,), (1.0,), (0.0,))
"""Time in layers, however many rows pass: DEL's tokens per layer."""
_TREES, _ASKING = {DrafterTree, PredictedTree}, {PredictedTree, PredictedExit}
_MOST_LAYERS = 16  # that are candidates: keeping states costs a little for each


def _native_exits(name: str) -> type[ExitDrafts]:
    try:  # not when this module is imported: other policies need no native code
        from specee._cpu import ExitDrafts
    except (ImportError, OSError) as error:
        raise ConfigurationError(
            f"policy {name} chooses exit layers in specee._cpu, which cannot be imported ({error}): "
            "reinstall specee from a wheel, or with a C++17 compiler present, or choose another policy"
        ) from error
    return ExitDrafts


class _Kept:
    """A plan that is as good as it was: what is saved here is every step's.

    ``views``: of the sequences that it is for, when it was made. ``left``: rounds until there is something to
    decide, which are a few more where the last of them are taken together. ``resting``: where nothing is
    drafted; what rounds show is then not looked at before one drafts.
    """

    __slots__ = ("_longest", "left", "plan", "resting", "rounds", "seconds", "sequences")

    def __init__(self, plan: Plan, views: Sequence[SequenceView], left: int, *, resting: bool) -> None:
        self.plan, self.left, self.resting = plan, left, resting
        self.sequences = [view.id for view in views]
        drafts = plan.drafts if isinstance(plan, Speculate) else ()
        self._longest = max([draft.most for draft in drafts], default=0)
        self.rounds, self.seconds = 0, 0.0

    def still(self, views: Sequence[SequenceView]) -> bool:
        """Whether there is nothing to decide yet, and room for what the plan drafts in every sequence."""
        if self.left <= 0 or [view.id for view in views] != self.sequences:
            return False
        return self._longest < min([view.remaining for view in views])


class Measured:
    """Drafts where it is worth most, and nothing where nothing is worth it.

    ``lookup``: whether copies are a source. ``exits``: kinds of exit layers by whether they are adapted.
    ``block``: whether the speculator's block is a source, in chains and trees, where there is one, and with
    its exit predictors, where there are some.
    ``measured``: whether the objective is in measured seconds, or in layers as DEL has it. ``sampled``:
    whether shadow tokens are taken now and then, or of all layers in every round.
    """

    def __init__(
        self,
        name: str,
        *,
        lookup: NgramLookup | None,
        exits: tuple[bool, ...],
        block: bool = False,
        measured: bool,
        sampled: bool,
    ) -> None:
        self.name = name
        self._with_block = block
        self._lookup = lookup
        self._kinds = exits
        self._measured = measured
        self._sampled = sampled

    def begin(self, model: ModelView) -> Needs:
        """Forget all sequences.

        Raises ConfigurationError where there is nothing to draft with, and where native code is missing. A
        model of one layer is decoded plainly.
        """
        self._model = model
        self._exits = _native_exits(self.name)
        self._choices: dict[int, DraftChoice] = {}
        self._latency: Latency | None = None
        self._objectives: dict[int, tuple[Objective, Objective]] = {}
        self._kept: _Kept | None = None
        step = -(-model.layers // _MOST_LAYERS) if self._sampled else 1
        own = tuple([(layer, 1.0) for layer in range(1, model.layers) if layer == 1 or layer % step == 0])
        adapted = model.adapted
        if True in self._kinds and model.trimmed:  # the own head is dearer, and hardly better
            own, adapted = (), tuple([pair for pair in adapted if pair[0] % step == 0])
        elif model.fitted:  # others draft worse, however deep: what they show says nothing of these
            adapted = tuple([pair for pair in adapted if pair[0] in model.fitted])
        kinds = {kind: adapted if kind else own for kind in self._kinds}
        self._heads = {kind: heads for kind, heads in kinds.items() if heads}
        if not self._heads and self._lookup is None and model.layers > 1:
            raise ConfigurationError(
                f"policy {self.name}: no layer has a draft head of a speculator: load a speculator file that "
                "has one, or draft with adapted=False"
            )
        self._all_layers: tuple[bool, tuple[int, ...]] | None = None
        if self._heads and not self._sampled:
            kind, heads = next(iter(self._heads.items()))
            self._all_layers = kind, tuple([layer for layer, _ in heads])
        sources: list[DraftSource] = [ExitLayer(heads[0][0], kind) for kind, heads in self._heads.items()]
        if self._lookup is not None:
            sources.append(self._lookup)
        share = model.drafter if self._with_block else None
        self._block = None if share is None else ChainCost(share)
        self._trees = None if share is None else ChainCost(share, DrafterTree)
        if self._block is not None:
            sources += [DrafterBlock(), DrafterTree()]
        self._schedule: ExitSchedule | None = None
        self._pruning: PruneCost | None = None
        self._leaving: PredictedCost | None = None
        if share is not None and model.exits is not None:
            self._schedule = ExitSchedule(model.exits.layers, model.exits.shares)
            self._pruning = PruneCost(model.exits, model.layers)
            self._leaving = PredictedCost(model.exits, share)
            sources += [PredictedTree(), PredictedExit()]
        seen = sorted({layer for heads in self._heads.values() for layer, _ in heads})
        kept = (*seen, model.layers) if seen else ()
        positions = POSITIONS if self._sampled else LONGEST + 1  # all that a round verifies
        return Needs(tuple(sources), kept, positions if kept else 0, latency=True)

    def plan(self, observation: Observation) -> Plan:
        """For each sequence its drafts and its looks."""
        kept, views = self._kept, observation.sequences
        if kept is not None:
            if kept.still(views) and observation.latency is self._latency:
                return kept.plan
            self._wake(kept)
        objective, seconds = self._objective(observation)
        drafts: list[Draft | None] = []
        shadows: list[Shadow] = []
        turns = ANY_TURNS if self._sampled else 1  # DEL as published decides in every round
        quiet = ANY_TURNS
        for view in views:
            choice = self._choices.get(view.id) or self._new(view.id)
            layers = () if self._schedule is None else self._schedule.of(view.id)
            fresh = view.fresh
            drafts.append(None if fresh else choice.draft(view, objective, layers))
            if self._heads and (shadow := choice.look(view, objective, seconds)) is not None:
                shadows.append(shadow)
            resting = choice.quiet
            quiet = min(quiet, resting)
            turns = 1 if fresh else min(turns, max(choice.settled, resting))
        if shadows:  # what is seen may change the plan: the sooner the better
            turns = 1
        plan = self._together(views, drafts, shadows, turns)
        if turns > 1:
            self._kept = _Kept(plan, views, quiet or turns, resting=quiet > 0)
        return plan

    def _together(
        self,
        views: Sequence[SequenceView],
        drafts: Sequence[Draft | None],
        shadows: Sequence[Shadow],
        turns: int,
    ) -> Plan:
        if not any(drafts):
            return NextToken(tuple([view.id for view in views]), tuple(shadows), turns)
        if None in drafts:
            nothing = self._lookup or NgramLookup()
            pairs = zip(views, drafts, strict=True)
            drafts = [draft or Draft(view.id, nothing, 0) for view, draft in pairs]
        return Speculate(tuple(drafts), tuple(shadows), turns)  # type: ignore[arg-type]  # none is None now

    def observe(self, outcome: Outcome) -> None:
        """Learn what came of the drafts, and what was seen beside."""
        rounds, times, kept = outcome.rounds, outcome.times, self._kept
        kinds = {type(entry.source) for entry in rounds if entry.source is not None}
        if kept is not None:
            kept.left -= 1
            if kept.resting and not kinds:
                kept.rounds += 1
                kept.seconds += times.total
                return
            if kept.resting or NgramLookup in kinds:
                self._wake(kept)
        if kinds:
            self._learn_costs(outcome, kinds)
        shadow, total = times.shadow / len(rounds), times.total / len(rounds)
        for entry in rounds:
            choice = self._choices.get(entry.sequence) or self._new(entry.sequence)
            choice.learn(entry)
            choice.note(total, shadow)
            if self._kept is not None and choice.failed:
                self._wake(self._kept)
        for seen in outcome.shadows:
            self._choices[seen.sequence].see(seen)

    def _learn_costs(self, outcome: Outcome, kinds: set[type[DraftSource]]) -> None:
        """What drafts take, from a round in which those of ``kinds`` were at work."""
        if self._block is not None and DrafterBlock in kinds:
            self._block.learn(outcome)
        if self._trees is not None and not kinds.isdisjoint(_TREES):
            self._trees.learn(outcome)
        if self._schedule is None or kinds.isdisjoint(_ASKING):
            return
        for entry in outcome.rounds:
            self._schedule.observe(entry.sequence, entry.exits)
        if self._pruning is not None:
            self._pruning.learn(outcome)
        found = self._objectives.get(len(outcome.rounds))
        if self._leaving is not None and found is not None:
            self._leaving.learn(outcome, found[1])

    def _wake(self, kept: _Kept) -> None:
        if kept.rounds:
            for index in kept.sequences:
                self._choices[index].skip(kept.rounds, kept.seconds / len(kept.sequences))
        self._kept = None

    def _objective(self, observation: Observation) -> tuple[Objective, Objective]:
        """What plans are judged by, and the same in measured seconds."""
        latency = observation.latency
        if latency is None:
            raise ConfigurationError(
                f"policy {self.name} plans in measured seconds, and the observation has no latency table: "
                "give it one"
            )
        if latency is not self._latency:
            self._latency, self._objectives = latency, {}
            if self._block is not None and self._trees is not None:
                self._block.begin(latency)
                self._trees.begin(latency)
            if self._pruning is not None:
                self._pruning.begin(latency)
        count = len(observation.sequences)
        if count not in self._objectives:
            layers = self._model.layers
            seconds = objective_of(latency, layers, count)
            judged = seconds if self._measured else objective_of(_LAYERS_ALONE, layers, count)
            self._objectives[count] = judged, seconds
        return self._objectives[count]

    def _new(self, sequence: int) -> DraftChoice:
        exits = self._exits([*self._heads.items()], POSITIONS, GAIN)
        lookup = None if self._lookup is None else (self._lookup, LookupChoice())
        block = None if self._block is None else BlockChoice(self._block)
        trees = None if self._trees is None else TreeChoice(self._trees, pruning=self._pruning)
        predicted = None if self._leaving is None else PredictedChoice(self._leaving)
        choice = DraftChoice(exits, lookup, block, trees, predicted, all_layers=self._all_layers)
        self._choices[sequence] = choice
        return choice
