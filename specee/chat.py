"""A conversation that keeps its KV cache: each turn computes only what the previous ones did not."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

from specee.backends.protocol import Backend, SequenceState
from specee.drafting import DraftHeads, built_in
from specee.engine import ActiveSequence, Generation, LatencyMeter, continue_text, get_ready
from specee.errors import CapacityError
from specee.options import Options
from specee.policies import Policy, make_policy
from specee.requests import Decode, make_request
from specee.types import KVDtype

_FIRST_CAPACITY = 1024


class Chat:
    """One growing text in one cache. Interrupted answers leave it usable."""

    def __init__(
        self,
        backend: Backend,
        kv_dtype: KVDtype | None = None,
        *,
        heads: Callable[[Policy], DraftHeads] | None = None,
        decode: Decode | None = None,
        latency: LatencyMeter | None = None,
    ) -> None:
        self._backend = backend
        self._kv_dtype = kv_dtype
        self._heads_for = heads or (lambda _: DraftHeads(backend))
        self._decode = decode
        self._latency = latency or LatencyMeter(backend)
        self._state: SequenceState | None = None
        self.reused = 0

    def reset(self) -> None:
        """Forget everything and give the cache back."""
        self._state, self.reused = None, 0

    def answer(
        self, prompt: Seq[int], options: Options, policy: str | Policy = "autoregressive"
    ) -> Generation:
        """A generation that continues ``prompt``, the whole conversation in tokens so far.

        Positions that the cache already holds are kept (``reused`` says how many); from the first token
        that differs on they are computed. Raises CapacityError if prompt and answer exceed the context.
        """
        request = make_request(prompt, options, 0, self._decode)
        chosen = make_policy(policy)
        # What is wrong must not cost the cache.
        heads = self._heads_for(chosen)
        get_ready(chosen, heads.view, built_in(self._backend, heads))
        state = self._with_room(request.capacity)
        self.reused = continue_text(state, request.prompt)
        sequences = [ActiveSequence(0, request, state)]
        return Generation(self._backend, sequences, chosen, heads, latency=self._latency)

    def _with_room(self, needed: int) -> SequenceState:
        """A state of enough capacity: the one there is, or a larger one (then nothing is reused)."""
        context = self._backend.config.max_position
        if needed > context:
            raise CapacityError(
                f"the conversation and its answer need {needed} positions, and the context holds {context}: "
                "reset the conversation or ask for fewer new tokens"
            )
        if self._state is None or self._state.capacity < needed:
            capacity = min(context, max(2 * needed, _FIRST_CAPACITY))
            self._state = None  # give the old cache back before asking for the new one
            self._state = self._backend.sequence(capacity, self._kv_dtype)
        return self._state
