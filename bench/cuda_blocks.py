"""Chains of a drafter block for the benches of the CUDA backend: verified in one launch, and step by step.

The block is narrow and full of zeros: what it is quantised by takes seconds, and what it says no time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from specee.errors import SpeceeError
from specee.models.drafter_parts import DrafterParts, shapes
from specee.types import ModelConfig

from .cuda_exits import no_launch

DRAFTS = 3


def blank_block(config: ModelConfig) -> DrafterParts:
    """A block that reads the last layer."""
    found = {}
    for name, shape in shapes(config, 1, config.hidden_size // 4).items():
        found[name] = (np.ones if name.endswith(("norm", "norms")) else np.zeros)(shape, np.float32)
    return DrafterParts((config.num_layers,), **found)


def block_cases(backend: Any, own: Seq[Any]) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names, and what drafts and verifies a chain behind each of ``own`` sequences, and takes it back.

    What is named a launch raises SpeceeError where it is none.
    """
    from specee.backends.plain_rounds import run_rounds
    from specee.backends.protocol import ChainCall, RoundCall
    from specee.types import Sampling

    drafter, last, greedy = (
        backend.drafter(blank_block(backend.config)),
        backend.config.num_layers,
        Sampling(),
    )
    for one in own:
        one.keep([last], one.capacity)
        backend.advance([(one, one.append([1]))], last)
        one.append([1])
    lengths = [one.length for one in own]
    columns = [drafter.column(one.capacity, "bf16") for one in own]

    def turn(run: Callable[[list[RoundCall]], object]) -> None:
        """The newest position is to be computed again, as before."""
        calls = [
            RoundCall(one, greedy, (), 2 * DRAFTS, ChainCall(one, column, DRAFTS, 0.0, greedy))
            for one, column in zip(own, columns, strict=True)
        ]
        try:
            run(calls)
        finally:
            for one, length in zip(own, lengths, strict=True):
                one.rollback(one.length - length + 1)
                one.append([1])

    def launch() -> None:
        before = backend._rounds.taken
        turn(lambda calls: backend.run_rounds(calls, drafter))
        if backend._rounds.taken == before:
            raise SpeceeError(no_launch(backend))

    def step() -> None:
        turn(lambda calls: run_rounds(backend, calls, drafter))

    for _ in range(2):  # the column catches up, and a round is recorded when it comes again
        turn(lambda calls: backend.run_rounds(calls, drafter))
    yield f"{DRAFTS} drafts of a block, launch, {len(own)} sequences", launch
    yield f"{DRAFTS} drafts of a block, steps, {len(own)} sequences", step
