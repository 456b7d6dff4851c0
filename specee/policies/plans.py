"""What passes between a policy and the engine: plain data, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class SequenceView:
    """What a policy sees of one unfinished sequence.

    ``length`` counts committed positions, ``frontier[l]`` those done at layer l, ``remaining`` the
    tokens it may still be given.
    """

    id: int
    length: int
    frontier: tuple[int, ...]
    remaining: int


@dataclass(frozen=True)
class Observation:
    """All unfinished sequences at the start of a step; never empty."""

    sequences: tuple[SequenceView, ...]


@dataclass(frozen=True)
class NextToken:
    """Take all pending positions of these sequences through every layer, and draw one token after each."""

    sequences: tuple[int, ...]


Plan: TypeAlias = NextToken
"""Every kind of plan; a union as policies grow."""


@dataclass(frozen=True)
class Outcome:
    """What a plan gave: new tokens of each sequence in order, the positions computed, the seconds it took."""

    tokens: Mapping[int, tuple[int, ...]]
    rows: int
    seconds: float


class Policy(Protocol):
    """Decides what to run next. Same observations, same plans."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    def plan(self, observation: Observation) -> Plan:
        """What to run in this step; must advance at least one sequence."""

    def observe(self, outcome: Outcome) -> None:
        """Learn from what the latest plan gave."""
