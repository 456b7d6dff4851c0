"""The rows of the latest text, for the next turn of a conversation."""

from __future__ import annotations

from specee.backends.protocol import Backend, SequenceState
from specee.engine import Request, continue_text
from specee.errors import OutOfMemoryError
from specee.model import Model

_FIRST_CAPACITY = 1024


class KeptText:
    """Keys and values of one text. Who takes them has them alone, until they are put back."""

    def __init__(self) -> None:
        self._found: tuple[Backend, SequenceState] | None = None
        self.reused = 0
        """Positions that the latest request did not need to compute."""

    def take(self, model: Model, request: Request) -> SequenceState:
        """Rows that hold the prompt of ``request``, with room for its answer: those kept, or new ones.

        Raises OutOfMemoryError.
        """
        found, self._found = self._found, None
        if found is None or found[0] is not model.backend or found[1].capacity < request.capacity:
            del found  # give the old rows back before asking for new ones
            state = _with_room(model, request.capacity)
        else:
            state = found[1]
        self.reused = continue_text(state, request.prompt)
        return state

    def put(self, model: Model, state: SequenceState) -> None:
        """Keep rows in the place of any that are kept."""
        self._found = (model.backend, state)

    def drop(self) -> None:
        """Keep nothing."""
        self._found = None


def _with_room(model: Model, needed: int) -> SequenceState:
    """Room for this turn, and for more where there is memory."""
    ample = min(model.config.max_position, max(2 * needed, _FIRST_CAPACITY))
    try:
        return model.backend.sequence(ample, model.kv_dtype)
    except OutOfMemoryError:
        return model.backend.sequence(needed, model.kv_dtype)
