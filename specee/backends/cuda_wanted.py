"""Which rounds of the CUDA backend a launch can do, and what it needs for them."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import NamedTuple

from specee.backends.calls import ChainCall, LayerChainCall, RoundCall
from specee.backends.cuda_block_chains import drafts_of
from specee.backends.cuda_block_round import BlockDrafts
from specee.backends.cuda_draft import CudaDraftHead
from specee.backends.cuda_drafter import CudaDrafter
from specee.backends.cuda_head import is_plain
from specee.backends.cuda_repeats import Graphs
from specee.backends.cuda_round import DraftParts, Shape
from specee.backends.plain_copies import copied
from specee.backends.plain_drafts import Parts as Drafting
from specee.backends.protocol import DraftHead
from specee.backends.reference_sequence import ReferenceSequence
from specee.cuda.record import ROUND_TOKENS
from specee.cuda.tiles import MAX_LINEAR_ROWS
from specee.types import ModelConfig

_DRAFTS = (0, 1, 3, 7, 17)  # that rounds have room for: products take rows by eights


class _Copies(NamedTuple):
    """What the text itself offers, and the first token's chance; None where nobody has asked for it."""

    tokens: tuple[int, ...] = ()
    chance: float | None = None


class Wanted(NamedTuple):
    """A round that can be one launch.

    ``given``: drafts of each sequence, where the shape gets some; ``chances`` of those that are copies.
    """

    sequences: list[ReferenceSequence]
    shape: Shape
    drafting: DraftParts
    given: list[tuple[int, ...]]
    chances: list[float | None]


class Wants:
    """See the module; ``graphs`` says which draft heads and blocks are the backend's."""

    def __init__(self, config: ModelConfig, graphs: Graphs) -> None:
        self._config, self._graphs = config, graphs

    def of(self, calls: Seq[RoundCall], drafting: Drafting) -> Wanted | None:
        """None for what a launch cannot do; calls are checked (:func:`.run_rounds`)."""
        if not calls or not all(_is_ready(call, self._config.num_layers) for call in calls):
            return None
        copies = [_copies(call) for call in calls]
        given = any(own.tokens for own in copies)
        pairs = list(zip(calls, copies, strict=True))
        rest = [call for call, own in pairs if call.drafts is not None and not own.tokens]
        if (given and rest) or not all(map(_is_drawn_alike, rest)):
            return None
        layer, parts = (None, DraftParts()) if given else self._drafts(calls, drafting)
        found = [one.sequence for one in calls if isinstance(one.sequence, ReferenceSequence)]
        room = _room(found, [len(own.tokens) if given else _length(call) for call, own in pairs])
        if room is None or parts is None:
            return None
        kept = tuple(sorted({layer for one in found for layer in one.layers_kept}))
        shape = Shape(room, layer, parts.block is not None, parts.head is not None, given, kept)
        tokens = [own.tokens for own in copies] if given else []
        return Wanted(found, shape, parts, tokens, [own.chance if own.tokens else None for own in copies])

    def _drafts(self, calls: Seq[RoundCall], drafting: Drafting) -> tuple[int | None, DraftParts | None]:
        """The exit layer, if there is one, and what else drafts want; no parts where a launch has no way."""
        chains = [call.drafts for call in calls if call.drafts is not None]
        layered = [chain for chain in chains if isinstance(chain, LayerChainCall)]
        if len(layered) < len(chains):
            return None, self._by_block(calls, drafting)
        layers, heads = {chain.layer for chain in layered}, {chain.head for chain in layered}
        if not chains:
            return None, DraftParts()
        if len(layers) > 1 or len(heads) > 1:
            return None, None
        [layer], [head] = layers, heads
        return layer, self._parts_with(None, head)

    def _by_block(self, calls: Seq[RoundCall], drafting: Drafting) -> DraftParts | None:
        """The block and its head, where it is to draft for all; None for those that a launch cannot have."""
        chains, drafter = chains_of(calls), drafting.drafter
        if len(chains) < len(calls) or not isinstance(drafter, CudaDrafter):
            return None
        block = drafts_of(drafter, chains) if drafter.graphs is self._graphs else None
        return None if block is None else self._parts_with(block, drafting.head)

    def _parts_with(self, block: BlockDrafts | None, head: DraftHead | None) -> DraftParts | None:
        """None for a head that a launch cannot have: behind an adapter the host looks at states."""
        if head is None:
            return DraftParts(block)
        if not isinstance(head, CudaDraftHead) or head.repeats.graphs is not self._graphs:
            return None
        return DraftParts(block, head) if head.adapter is None else None


def _copies(call: RoundCall) -> _Copies:
    """Without what stands behind a token that ends the text."""
    if call.copies is None:
        return _Copies()
    tokens, chance = copied(call.copies, call.sequence)
    return _Copies(until_end(tuple(tokens), call), chance)


def _room(sequences: Seq[ReferenceSequence], lengths: Seq[int]) -> int | None:
    """For how many drafts of each sequence; a round has all of its rows."""
    most = min(
        ROUND_TOKENS - 1,
        MAX_LINEAR_ROWS // len(sequences) - 2,
        *(one.capacity - one.length - 1 for one in sequences),
    )
    # Few sizes, but where only the very one fits.
    longest = max(lengths)
    return next((count for count in (*_DRAFTS, longest) if longest <= count <= most), None)


def chain_of(call: RoundCall) -> LayerChainCall | ChainCall | None:
    """The chain that is to be drafted, if one is."""
    return call.drafts if isinstance(call.drafts, LayerChainCall | ChainCall) else None


def chains_of(calls: Seq[RoundCall]) -> list[ChainCall]:
    """Those of a block."""
    return [call.drafts for call in calls if isinstance(call.drafts, ChainCall)]


def until_end(tokens: tuple[int, ...], call: RoundCall) -> tuple[int, ...]:
    """Up to a token that ends the text, with it."""
    end = next((at for at, token in enumerate(tokens) if token in call.ends), len(tokens))
    return tokens[: end + 1]


def _length(call: RoundCall) -> int:
    chain = chain_of(call)
    return 0 if chain is None else chain.length


def _is_ready(call: RoundCall, layers: int) -> bool:
    """Whether the newest row alone is to be computed, and nobody wants a look at scores."""
    sequence = call.sequence
    if not isinstance(sequence, ReferenceSequence) or sequence.speculative or not is_plain(call.sampling):
        return False
    newest = sequence.find(sequence.length - 1)
    return newest.done == 0 and (newest.parent is None or newest.parent.done == layers)


def _is_drawn_alike(call: RoundCall) -> bool:
    """Whether a chain is to be drafted, drawn as the text is."""
    chain = chain_of(call)
    if chain is None:
        return False
    return chain.sampling == call.sampling or (chain.sampling.greedy and call.sampling.greedy)
