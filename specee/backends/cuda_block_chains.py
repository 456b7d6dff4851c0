"""What a block needs to draft chains in a round of one launch, and what its columns have of it then."""

from __future__ import annotations

from collections.abc import Sequence as Seq

from specee.backends.calls import ChainCall
from specee.backends.cuda_block_round import BlockDrafts, Unseen
from specee.backends.cuda_drafter import CudaColumn, CudaDrafter
from specee.backends.reference_chain import cut_to_text
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.block_record import UnseenText


def drafts_of(drafter: CudaDrafter, chains: Seq[ChainCall]) -> BlockDrafts | None:
    """The block with the chains' columns; None where they are not its own, or one is there twice."""
    columns = [chain.column for chain in chains if isinstance(chain.column, CudaColumn)]
    if len({id(one) for one in columns}) < len(chains) or any(one.drafter is not drafter for one in columns):
        return None
    return BlockDrafts(drafter, tuple(columns))


def unseen_by(
    drafts: BlockDrafts, sequences: Seq[ReferenceSequence], chains: Seq[ChainCall], most: int
) -> list[Unseen] | None:
    """Of each sequence, up to ``most`` positions; None where there are more, or no states of them.

    Columns lose what is not in their text any more.
    """
    found = [
        _unseen(drafts.drafter, column, sequence, chain.length, most)
        for column, sequence, chain in zip(drafts.columns, sequences, chains, strict=True)
    ]
    there = [one for one in found if one is not None]
    return there if len(there) == len(found) else None


def _unseen(
    drafter: CudaDrafter, column: CudaColumn, sequence: ReferenceSequence, length: int, most: int
) -> Unseen | None:
    last = sequence.length - 1
    if last < 1 or sequence.kept < 1 or last + length > column.capacity:
        return None
    if not set(drafter.layers) <= set(sequence.layers_kept):
        return None
    first = cut_to_text(column, sequence, last)
    if last + 1 - first > most:
        return None
    positions = range(first, last + 1)
    states = [[sequence.kept_state(at - 1, layer) for layer in drafter.layers] for at in positions]
    return Unseen(UnseenText(sequence.tokens(first, last + 1), first - column.first), states)


def book(drafts: BlockDrafts, unseen: Seq[Unseen]) -> None:
    """Columns have seen the text; drafts left keys and values behind it, and no tokens."""
    for column, one in zip(drafts.columns, unseen, strict=True):
        for token in one.text.tokens:
            column.take()
            column.tokens.append(token)
