"""Copies of the text on the CUDA backend: verified in one launch, and in any case what steps would say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.plain_copies import CopiedText  # noqa: E402
from specee.backends.protocol import CopyCall, RoundCall, RoundTurn  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.graph.place import Place  # noqa: E402
from tests.graph.round_pair import GREEDY, Pair, plain  # noqa: E402


@pytest.mark.parametrize("greedy", [True, False])
def test_copies(
    place: Place, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, greedy: bool
) -> None:
    """What is offered is what the model says, up to somewhere; an end is the last of it."""
    pair = Pair(place, rng)
    text = GREEDY if greedy else Sampling(temperature=0.6, seed=int(rng.integers(2**62)))
    turns = plain(40, [text] * 2)(pair.steps, pair.sequences(pair.steps))
    said = [[token for turn in turns for token in turn.texts[at].tokens] for at in range(2)]
    wrong, end = [token for token in range(pair.config.vocab_size) if token not in said[0] + said[1]][:2]
    right = rng.integers(0, 3, (10, 2)).tolist()
    nothing = rng.random((10, 2)) < 0.3

    def run(backend: CudaBackend, sequences: list[Any]) -> list[RoundTurn]:
        found, indices = [], [backend.copies(3, 1) for _ in sequences]
        offers: dict[int, tuple[list[int], float]] = {}
        monkeypatch.setattr(CopiedText, "lookup", lambda index, _: offers[id(index)])
        for turn in range(10):
            for at, (one, index) in enumerate(zip(sequences, indices, strict=True)):
                begin = one.length - len(pair.texts[at])
                own = [*said[at][begin : begin + right[turn][at]], *[wrong] * 5][:5]
                offers[id(index)] = ([] if nothing[turn, at] else [*own, end, 5], 0.25 * (at + 1))
            calls = [
                RoundCall(one, text, [end], 30, None, CopyCall(index, 8, 0.0))
                for one, index in zip(sequences, indices, strict=True)
            ]
            found += backend.run_rounds(calls)
        return found

    found, _ = pair.both(run)
    assert pair.taken >= 7, (
        "the first round has prompts; those of two shapes are recorded when they come again"
    )
    texts = [one for turn in found for one in turn]
    assert [one.copied for one in texts] == [not none for none in nothing.flatten()]
    assert {one.confidences for one in texts} <= {(), (0.25,) * 6, (0.5,) * 6}
    assert any(one.accepted for one in texts)
    for at, own in enumerate(said):
        tokens = [token for turn in found for token in turn[at].tokens]
        assert tokens == own[: len(tokens)]
