"""What the speculator's block has for each sequence of a generation, whoever drafts with it."""

from __future__ import annotations

from specee.backends.protocol import FittedColumn, FittedDrafter, SequenceState
from specee.drafting.heads import DraftHeads
from specee.errors import ConfigurationError

WINDOW = 512
"""Positions whose states are kept for it: a longer prompt it knows from there on."""


class Columns:
    """A column of keys and values for each sequence, which follows its text by itself."""

    def __init__(self, heads: DraftHeads) -> None:
        self._heads = heads
        self._columns: dict[int, FittedColumn] = {}

    @property
    def block(self) -> FittedDrafter:
        """The speculator's block. Raises ConfigurationError if there is none."""
        if self._heads.drafter is None:
            raise ConfigurationError(
                "no drafter block is loaded: load a speculator file that has one, or use another policy"
            )
        return self._heads.drafter

    def of(self, sequence: int, state: SequenceState) -> FittedColumn:
        """The column of a sequence, made when it is first asked for.

        Raises ConfigurationError, CapacityError, OutOfMemoryError.
        """
        if sequence not in self._columns:
            self._columns[sequence] = self.block.column(state.capacity, "fp16")
        return self._columns[sequence]


def guessable(state: SequenceState) -> bool:
    """Whether the block can guess after a row that waits: a state before the first of them is kept."""
    complete = state.frontier[-1]
    return 0 < complete < state.length and state.kept > 0
