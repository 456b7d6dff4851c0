"""Plans are checked before anything runs: a policy, also a user's own, cannot leave a step half done."""

from __future__ import annotations

from collections.abc import Container, Mapping
from collections.abc import Sequence as Seq
from typing import Any

from specee.drafting import Drafter
from specee.engine.sequence import ActiveSequence
from specee.errors import CapacityError, ConfigurationError
from specee.policies import (
    Draft,
    DraftSource,
    ModelView,
    Needs,
    NextToken,
    Plan,
    Policy,
    Shadow,
    Speculate,
)


def get_ready(policy: Policy, model: ModelView, drafters: Mapping[type[DraftSource], Drafter]) -> Needs:
    """Begin with a policy, and return what it needs.

    Raises ConfigurationError for settings, layers or a source that the model does not have.
    """
    needs = policy.begin(model)
    if not isinstance(needs, Needs):
        raise ConfigurationError(
            f"policy {policy!r}: its begin() returned {type(needs).__name__}; allowed is Needs"
        )
    _check_needs(needs, policy, model)
    for source in needs.sources:
        drafter_of(source, drafters).check(source)
    return needs


def _check_needs(needs: Needs, policy: Policy, model: ModelView) -> None:
    sources, layers, positions = needs.sources, needs.shadow_layers, needs.shadow_positions
    sound = isinstance(sources, tuple) and isinstance(layers, tuple)
    sound = sound and all(_whole(layer) and 1 <= layer <= model.layers for layer in layers)
    if not sound or list(layers) != sorted(set(layers)) or not _whole(positions) or positions < 0:
        raise ConfigurationError(
            f"policy {policy!r} needs sources {sources!r}, and the outputs of layers {layers!r} of "
            f"{positions!r} positions: allowed are tuples, distinct whole layers, ascending, of "
            f"1..{model.layers}, and 0 positions or more"
        )


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def check_plan(
    plan: Plan,
    sequences: Mapping[int, ActiveSequence],
    drafters: Mapping[type[DraftSource], Drafter],
    model: ModelView,
    kept: Container[int],
) -> None:
    """Refuse a plan that cannot be carried out. ``kept`` are the layers that shadows may look at.

    Raises ConfigurationError for an unknown kind of plan or source, a sequence that is not there or over or
    named twice, a negative length, a source or a shadow's layer that is not there; CapacityError for drafts
    that outgrow the sequence's budget.
    """
    if not isinstance(plan, (NextToken, Speculate)):
        raise ConfigurationError(f"a plan of type {type(plan).__name__}: allowed are NextToken and Speculate")
    named = plan.sequences if isinstance(plan, NextToken) else [d.sequence for d in plan.drafts]
    if not _fit(named, sequences):
        running = [index for index, sequence in sequences.items() if sequence.finish_reason is None]
        raise ConfigurationError(
            f"a plan for sequences {list(named)}: allowed are {running}, at least one of them and each once"
        )
    if isinstance(plan, Speculate):
        for draft in plan.drafts:
            _check_draft(draft, sequences[draft.sequence], drafters)
    if plan.shadows:
        _check_shadows(plan.shadows, sequences, model, kept)


def _fit(named: Seq[int], sequences: Mapping[int, ActiveSequence]) -> bool:
    for index in named:
        sequence = sequences.get(index)
        if sequence is None or sequence.finish_reason is not None:
            return False
    return len(named) == 1 or len(named) == len(set(named)) > 0


def _check_draft(
    draft: Draft, sequence: ActiveSequence, drafters: Mapping[type[DraftSource], Drafter]
) -> None:
    if draft.length < 0:
        raise ConfigurationError(f"a speculation length of {draft.length}: allowed are 0 or more")
    if draft.length >= sequence.remaining and draft.length > 0:
        raise CapacityError(
            f"{draft.length} drafts for sequence {draft.sequence}, which may grow by {sequence.remaining} "
            f"tokens: a round emits one token more than its drafts, so at most {sequence.remaining - 1} fit"
        )
    drafter_of(draft.source, drafters).check(draft.source)
    if draft.otherwise is not None:
        if draft.otherwise.sequence != draft.sequence:
            raise ConfigurationError(
                f"drafts for sequence {draft.sequence}, and otherwise for sequence "
                f"{draft.otherwise.sequence}: allowed is the same one"
            )
        _check_draft(draft.otherwise, sequence, drafters)


def _check_shadows(
    shadows: Seq[Shadow],
    sequences: Mapping[int, ActiveSequence],
    model: ModelView,
    kept: Container[int],
) -> None:
    named = [(shadow.sequence, shadow.adapted) for shadow in shadows]
    if len(named) != len(set(named)):
        raise ConfigurationError(f"shadows of {named}: allowed is one a sequence, and one more adapted")
    for shadow in shadows:
        if shadow.sequence not in sequences:
            raise ConfigurationError(f"a shadow of sequence {shadow.sequence}: allowed are {list(sequences)}")
        if shadow.positions is not None and shadow.positions < 1:
            raise ConfigurationError(f"a shadow of {shadow.positions} positions: allowed are 1 or more")
        able = dict(model.adapted) if shadow.adapted else range(1, model.layers)
        wrong = [layer for layer in shadow.layers if layer not in kept or layer not in able]
        if wrong or not shadow.layers or len(set(shadow.layers)) != len(shadow.layers):
            raise ConfigurationError(
                f"a shadow of layers {shadow.layers}, adapted={shadow.adapted}: allowed are distinct layers "
                f"of 1..{model.layers - 1} that the policy's begin() asked for, and that have a draft head"
            )


def drafter_of(source: DraftSource, drafters: Mapping[type[DraftSource], Drafter]) -> Drafter:
    """Who drafts for that kind of source. Raises ConfigurationError if nobody does."""
    drafter = drafters.get(type(source))
    if drafter is None:
        known = ", ".join(kind.__name__ for kind in drafters)
        raise ConfigurationError(f"a draft source of type {type(source).__name__}: allowed are {known}")
    return drafter
