"""Copies of the text as drafts, for backends that are no native code."""

from __future__ import annotations

from specee.backends.calls import CopyCall
from specee.backends.handles import SequenceState
from specee.errors import ConfigurationError, RowError
from specee.ngrams import NgramIndex


class CopiedText(NgramIndex):
    """See :meth:`.Backend.copies`."""

    def __init__(self, longest: int, shortest: int) -> None:
        if shortest < 1 or longest < shortest:
            raise RowError(
                f"n-grams of {longest} to {shortest} tokens: the longest has as many as the shortest or "
                "more, which has 1 or more"
            )
        super().__init__(longest, shortest)

    def follow(self, state: SequenceState) -> None:
        """Learn what was added to the committed text since; one that does not go on from there anew."""
        self.match(state.length, lambda slot: state.row(slot).token)
        self.grow([state.row(slot).token for slot in range(self.length, state.length)])


def copied(call: CopyCall, state: SequenceState) -> tuple[list[int], float]:
    """The tokens, none where nothing is found, and the first one's chance. Raises ConfigurationError."""
    index = call.ngrams
    if not isinstance(index, CopiedText):
        raise ConfigurationError(
            f"got a {type(index).__name__} where this backend needs its own index; make one with copies()"
        )
    index.follow(state)
    tokens, confidence = index.lookup(call.length)
    return tokens[:1] if confidence < call.stop_below else tokens, confidence
