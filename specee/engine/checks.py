"""Plans are checked before anything runs: a policy, also a user's own, cannot leave a step half done."""

from __future__ import annotations

from collections.abc import Container, Mapping
from collections.abc import Sequence as Seq

from specee.drafting import Drafter, States
from specee.engine.sequence import ActiveSequence
from specee.errors import CapacityError, ConfigurationError
from specee.policies import (
    Draft,
    DraftSource,
    Leave,
    LeaveEarly,
    ModelView,
    Needs,
    NextToken,
    Plan,
    Policy,
    PredictedExit,
    PredictedTree,
    Speculate,
)
from specee.policies.checks import check_layers, check_shadows, checked_needs, needed_exits


def get_ready(policy: Policy, model: ModelView, drafters: Mapping[type[DraftSource], Drafter]) -> Needs:
    """Begin with a policy, and return what it needs.

    Raises ConfigurationError for settings, layers or a source that the model does not have.
    """
    needs = checked_needs(policy.begin(model), policy, model)
    for source in needs.sources:
        drafter_of(source, drafters).check(source)
    return needs


def states_kept(needs: Needs, drafters: Mapping[type[DraftSource], Drafter]) -> States:
    """What is to be kept for the shadows of a policy and for its sources, all in one."""
    read = [drafter_of(source, drafters).reads(source) for source in needs.sources]
    read.append(States(needs.shadow_layers, needs.shadow_positions))
    layers = {layer for states in read for layer in states.layers}
    positions = [states.positions for states in read if states.layers]
    return States(tuple(sorted(layers)), max(positions, default=0))


def check_plan(
    plan: Plan,
    sequences: Mapping[int, ActiveSequence],
    drafters: Mapping[type[DraftSource], Drafter],
    model: ModelView,
    kept: Container[int],
) -> None:
    """Refuse a plan that cannot be carried out. ``kept`` are the layers that shadows may look at.

    Raises ConfigurationError for an unknown kind of plan or source, a sequence that is not there or over or
    named twice, no turn, a negative length, a source or a shadow's layer that is not there; CapacityError for
    drafts that outgrow the sequence's budget.
    """
    if not isinstance(plan, (NextToken, Speculate, LeaveEarly)):
        raise ConfigurationError(
            f"a plan of type {type(plan).__name__}: allowed are NextToken, Speculate and LeaveEarly"
        )
    named = _named(plan)
    if not _fit(named, sequences):
        running = [index for index, sequence in sequences.items() if sequence.finish_reason is None]
        raise ConfigurationError(
            f"a plan for sequences {list(named)}: allowed are {running}, at least one of them and each once"
        )
    if not isinstance(plan, LeaveEarly) and not (type(plan.turns) is int and plan.turns >= 1):
        raise ConfigurationError(f"a plan for {plan.turns!r} turns: allowed are whole numbers, 1 or more")
    if isinstance(plan, Speculate):
        for draft in plan.drafts:
            _check_draft(draft, sequences[draft.sequence], drafters, model)
    if isinstance(plan, LeaveEarly):
        for leave in plan.leaves:
            _check_leave(leave, sequences[leave.sequence], drafters, model)
    if plan.shadows:
        check_shadows(plan.shadows, sequences, model, kept)


def _named(plan: Plan) -> Seq[int]:
    if isinstance(plan, NextToken):
        return plan.sequences
    return [each.sequence for each in (plan.drafts if isinstance(plan, Speculate) else plan.leaves)]


def _fit(named: Seq[int], sequences: Mapping[int, ActiveSequence]) -> bool:
    for index in named:
        sequence = sequences.get(index)
        if sequence is None or sequence.finish_reason is not None:
            return False
    return len(named) == 1 or len(named) == len(set(named)) > 0


def _check_leave(
    leave: Leave,
    sequence: ActiveSequence,
    drafters: Mapping[type[DraftSource], Drafter],
    model: ModelView,
) -> None:
    check_layers(leave.layers, leave.threshold, needed_exits(model.exits))
    if leave.waiting < 0:
        raise ConfigurationError(f"at most {leave.waiting} rows waiting: allowed are 0 or more")
    if sequence.judged:
        raise ConfigurationError(
            f"sequence {sequence.id} has processors or acceptance='rejection', which early exits without "
            "verification do not know: use another policy, or mode='lossless'"
        )
    if leave.tree is not None:
        _check_tree(leave, leave.tree, sequence, drafters, model)


def _check_tree(
    leave: Leave,
    tree: Draft,
    sequence: ActiveSequence,
    drafters: Mapping[type[DraftSource], Drafter],
    model: ModelView,
) -> None:
    """That of a :class:`.Leave`, which says itself where and how predictors are asked."""
    _check_draft(tree, sequence, drafters, model)
    source = tree.source
    same = tree.sequence == leave.sequence and tree.layers == leave.layers and tree.otherwise is None
    if not (same and isinstance(source, PredictedTree) and source.threshold == leave.threshold):
        raise ConfigurationError(
            f"sequence {leave.sequence} leaves at {leave.layers} over {leave.threshold} with a tree of "
            f"sequence {tree.sequence} at {tree.layers}, {source}: allowed is a PredictedTree with the same "
            "sequence, layers and threshold, and nothing otherwise"
        )


def _check_draft(
    draft: Draft,
    sequence: ActiveSequence,
    drafters: Mapping[type[DraftSource], Drafter],
    model: ModelView,
) -> None:
    if draft.length < 0:
        raise ConfigurationError(f"a speculation length of {draft.length}: allowed are 0 or more")
    if draft.length >= sequence.remaining and draft.length > 0:
        raise CapacityError(
            f"{draft.length} drafts for sequence {draft.sequence}, which may grow by {sequence.remaining} "
            f"tokens: a round emits one token more than its drafts, so at most {sequence.remaining - 1} fit"
        )
    drafter_of(draft.source, drafters).check(draft.source)
    if draft.layers and isinstance(draft.source, (PredictedExit, PredictedTree)):
        check_layers(draft.layers, draft.source.threshold, model.exits)
    if draft.otherwise is not None:
        if draft.otherwise.sequence != draft.sequence:
            raise ConfigurationError(
                f"drafts for sequence {draft.sequence}, and otherwise for sequence "
                f"{draft.otherwise.sequence}: allowed is the same one"
            )
        _check_draft(draft.otherwise, sequence, drafters, model)


def drafter_of(source: DraftSource, drafters: Mapping[type[DraftSource], Drafter]) -> Drafter:
    """Who drafts for that kind of source. Raises ConfigurationError if nobody does."""
    drafter = drafters.get(type(source))
    if drafter is None:
        known = ", ".join(kind.__name__ for kind in drafters)
        raise ConfigurationError(f"a draft source of type {type(source).__name__}: allowed are {known}")
    return drafter
