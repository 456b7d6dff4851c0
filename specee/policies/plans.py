"""What passes between a policy and the engine: plain data, both ways.

What is made anew at every step is a named tuple, which costs a third of a frozen dataclass; what names a
source is a dataclass, which equals only its own kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias


class SequenceView(NamedTuple):
    """What a policy sees of one unfinished sequence.

    ``length`` counts committed positions, ``frontier[l]`` those done at layer l (one entry a layer),
    ``remaining`` the tokens it may still be given, which is also the most rows a plan may add to it, plus
    one.
    """

    id: int
    length: int
    frontier: tuple[int, ...]
    remaining: int

    @property
    def fresh(self) -> bool:
        """More than the newest token is waiting to be computed: a prompt, whole or in part."""
        return self.frontier[0] < self.length - 1


class Observation(NamedTuple):
    """All unfinished sequences at the start of a step; never empty."""

    sequences: tuple[SequenceView, ...]


@dataclass(frozen=True)
class ExitLayer:
    """Draft with layers 1 to ``layer`` and a head on the hidden state after it.

    The head is the model's own; with ``adapted``, the speculator's: an adapter for that layer, and the
    rows of the head that belong to its draft vocabulary.
    """

    layer: int
    adapted: bool = False


@dataclass(frozen=True)
class NgramLookup:
    """Draft by copying what followed an earlier occurrence of the latest tokens, in prompt or output.

    The longest suffix of ``longest`` to ``shortest`` tokens that occurred before is looked up. Costs no
    layer and no head (Saxena, "Prompt lookup decoding", 2023).
    """

    longest: int = 4
    shortest: int = 2


DraftSource: TypeAlias = ExitLayer | NgramLookup
"""Where drafts come from; :mod:`specee.drafting` has what each stands for."""


class DraftCost(NamedTuple):
    """What one drafted token costs: layers that its row goes through, and reads of the head's weights.

    ``head`` is 1 for the model's own head, less for a trimmed one, 0 for none.
    """

    layers: int
    head: float


class Draft(NamedTuple):
    """Draft for one sequence: at most ``length`` tokens, none if 0.

    Drafting ends early after a token whose confidence is under ``stop_below`` (that token is still
    verified) and after one that ends the text.
    """

    sequence: int
    source: DraftSource
    length: int
    stop_below: float = 0.0


class NextToken(NamedTuple):
    """Take all pending positions of these sequences through every layer, and draw one token after each."""

    sequences: tuple[int, ...]


class Speculate(NamedTuple):
    """Draft for each sequence named, verify all drafts in one pass, and keep what the full model confirms."""

    drafts: tuple[Draft, ...]


Plan: TypeAlias = NextToken | Speculate
"""Every kind of plan; a union as policies grow."""


class Round(NamedTuple):
    """What one sequence got from a plan.

    ``tokens`` were emitted, the first ``accepted`` of them drafted before, the last one (if there is one
    more) drawn by the full model. ``drafted`` tokens were proposed and verified, with ``confidences`` in the
    order they were drafted. ``source`` is None where nothing was drafted.
    """

    sequence: int
    tokens: tuple[int, ...]
    source: DraftSource | None = None
    drafted: int = 0
    accepted: int = 0
    confidences: tuple[float, ...] = ()


class Times(NamedTuple):
    """Seconds in backend calls: layers for drafts, heads for drafts, layers for verification, its head."""

    draft: float = 0.0
    draft_head: float = 0.0
    verify: float = 0.0
    head: float = 0.0

    @property
    def total(self) -> float:
        """All of them; what else a step takes is spent in Python."""
        return self.draft + self.draft_head + self.verify + self.head


class Outcome(NamedTuple):
    """What a plan gave each of its sequences, and the time of its backend calls."""

    rounds: tuple[Round, ...]
    times: Times = Times()


class Policy(Protocol):
    """Decides what to run next. Same observations and outcomes, same plans."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    def begin(self, layers: int) -> tuple[DraftSource, ...]:
        """Forget what was learnt, and get ready for a model of ``layers`` layers.

        Returns the sources that plans will name, as far as they are known, so that one that is not there is
        found before anything runs. Called before a generation, maybe twice. Raises ConfigurationError for
        settings that do not fit the model.
        """

    def plan(self, observation: Observation) -> Plan:
        """What to run in this step; must advance at least one sequence."""

    def observe(self, outcome: Outcome) -> None:
        """Learn from what the latest plan gave."""
