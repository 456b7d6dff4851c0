"""What layers draft after a text, by a sequence of its own that keeps nothing."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from functools import cache as cache_calls

import numpy as np

from specee.backends.protocol import Backend, DraftHead, SequenceState
from specee.errors import RowError
from specee.types import Sampling
from tests.exactness.draws import CONFIDENCE, confidence, text_of
from tests.random_model import BASE

LAYERS = BASE.num_layers
FORMATS = [("llama", "fp32"), ("llama-tied", "bf16"), ("mistral-window", "int8"), ("aligned", "mixed")]


def tokens_of(backend: Backend, count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, backend.config.vocab_size, count).tolist()


class Fresh:
    """What each layer drafts after a text, by a sequence of that text's own that keeps nothing."""

    def __init__(self, backend: Backend, head: DraftHead | None = None) -> None:
        self.backend, self.head = backend, head

        @cache_calls
        def drafts(text: tuple[int, ...]) -> list[tuple[int, float]]:
            sequence = backend.sequence(len(text))
            work = [(sequence, sequence.append(text)[-1:])]
            found = []
            for layer in range(1, backend.config.num_layers + 1):
                backend.advance(work, layer)
                logits = backend.logits(work, head)[0]
                ((token,), (share,)) = backend.draft(work, [Sampling()], head)
                assert token == logits.argmax()
                np.testing.assert_allclose(share, confidence(logits, token), rtol=CONFIDENCE)
                found.append((int(token), float(share)))
            return found

        self.drafts = drafts

    def agrees(self, sequence: SequenceState, slots: Seq[int], layers: Seq[int]) -> bool:
        """Whether the shadows of some rows are those drafts, to the bit."""
        tokens, shares = self.backend.shadow([(sequence, slots)], layers, self.head)
        assert (tokens.dtype, shares.dtype) == (np.int64, np.float32)
        assert tokens.shape == shares.shape == (len(slots), len(layers))
        wanted = [[self.drafts(tuple(text_of(sequence, slot)))[at - 1] for at in layers] for slot in slots]
        got = np.stack([tokens, shares], axis=-1).tolist()
        return got == [[list(pair) for pair in row] for row in wanted]


def is_kept(backend: Backend, sequence: SequenceState, slot: int, layer: int) -> bool:
    try:
        backend.shadow([(sequence, [slot])], [layer])
    except RowError as error:
        if "not kept" not in str(error):
            raise
        return False
    return True
