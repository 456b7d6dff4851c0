"""What policies with one draft source share: a plan for every sequence of an observation."""

from __future__ import annotations

from collections.abc import Callable

from specee.policies.plans import Draft, DraftSource, Observation, SequenceView, Speculate

FEW_TURNS = 6
"""In which a length, a size or a choice is as good as it was."""
STEADY_TURNS = 16
"""The same where it is the speculator's block that drafts, and has proved to be right."""
ASKING_TURNS = 2
"""The same where predictors are asked at layers that follow where the latest drafts left."""
ANY_TURNS = 64
"""As many as anybody may want: there is nothing to be asked."""


def speculate(
    observation: Observation,
    source: DraftSource,
    length: Callable[[SequenceView], int],
    stop_below: Callable[[SequenceView], float] = lambda _: 0.0,
    latest: Speculate | None = None,
    turns: int = 1,
) -> Speculate:
    """Draft for each sequence as long as ``length`` says, as far as its text may still grow.

    If that is what ``latest`` says it is returned: a plan known to be sound is not checked again.

    A round emits one token more than it drafts at most, so the last token of a budget is never drafted. A
    prompt comes first by itself: its first token is out as early as without drafting.
    """
    drafts = [
        Draft(
            view.id,
            source,
            0 if view.fresh else min(length(view), view.remaining - 1),
            stop_below(view),
        )
        for view in observation.sequences
    ]
    plan = Speculate(tuple(drafts), turns=turns)
    return latest if latest is not None and plan == latest else plan
