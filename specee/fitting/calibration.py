"""How much approximate decoding disagrees: generations from questions that nothing was fitted on.

The unit is one generation, greedy, of so many tokens at most; its loss is the share of emitted tokens that
are not the full model's most likely ones after the same text. The questions are the model's own, drawn as
those of the corpus are, with other seeds; :mod:`specee.policies.risk` says what follows from the losses.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from collections.abc import Sequence as Seq

import numpy as np

from specee.backends.protocol import Backend, Floats, Ints
from specee.drafting import DraftHeads
from specee.engine import Generation, Request, reserve
from specee.fitting.corpus import wishes
from specee.fitting.writer import Writer
from specee.models.speculator import Speculator
from specee.policies import Policy
from specee.policies.specee import SpecEE
from specee.types import KVDtype

THRESHOLDS = (0.99, 0.95, 0.9, 0.8, 0.65, 0.5)
_TOGETHER = 8  # generations; what comes of one does not depend on the others
_SHARD = 64  # questions asked for at a time


def questions(
    writer: Writer, seed: int, count: int, over: Callable[[], bool] = lambda: False
) -> list[tuple[int, ...]]:
    """Prompts up to where the answer begins, as they are drawn; fewer where the model asks nothing.

    ``over`` says that there have to be enough.
    """
    found: list[tuple[int, ...]] = []
    tag = random.Random(f"specee calibration {seed}").getrandbits(48)  # no corpus has such a seed
    shard = 0
    while len(found) < count and not (shard and over()):
        written = writer.write(wishes(tag, shard, min(count, _SHARD)))
        more = [one.tokens[: one.answer] for one in written if one is not None]
        if not more:
            break
        found += more
        shard += 1
    return found[:count]


class Calibrator:
    """Of one model with its speculator; ``ends`` end a text."""

    def __init__(
        self,
        backend: Backend,
        speculator: Speculator,
        ends: frozenset[int],
        tokens: int,
        kv_dtype: KVDtype | None = None,
    ) -> None:
        self._backend, self._heads, self._ends = backend, DraftHeads(backend, speculator), ends
        self._tokens, self._kv_dtype = tokens, kv_dtype

    def losses_of(self, prompts: Seq[tuple[int, ...]], threshold: float) -> Floats:
        """Of a greedy generation from each prompt, whatever is generated beside it: (prompts,)."""
        found: list[float] = []
        for begin in range(0, len(prompts), _TOGETHER):
            policy = SpecEE("approximate", threshold=float(np.float32(threshold)))  # as a file has it
            found += self._losses(prompts[begin : begin + _TOGETHER], policy)
        return np.array(found, np.float32)

    def _losses(self, prompts: Seq[tuple[int, ...]], policy: Policy) -> list[float]:
        requests = [Request(prompt, self._tokens, eos=self._ends) for prompt in prompts]
        sequences = reserve(self._backend, requests, self._kv_dtype)
        for _ in Generation(self._backend, sequences, policy, self._heads):
            pass
        return [
            float(np.mean(np.array(one.generated) != self._full(one.request.prompt, one.generated)))
            for one in sequences
        ]

    def _full(self, prompt: Seq[int], generated: Seq[int]) -> Ints:
        """The full model's most likely token at each place of ``generated``."""
        state = self._backend.sequence(len(prompt) + len(generated), self._kv_dtype)
        slots = list(state.append([*prompt, *generated[:-1]]))[len(prompt) - 1 :]
        self._backend.advance([(state, slots)], self._backend.config.num_layers)
        return self._backend.argmax([(state, slots)])
