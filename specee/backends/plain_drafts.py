"""What rounds draft, as speculative rows, from a backend's other verbs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from typing import NamedTuple, Protocol

from specee.backends.plain_copies import copied
from specee.backends.protocol import (
    ChainCall,
    DraftedTree,
    DraftHead,
    ExitCall,
    ExitChainCall,
    Exits,
    FittedDrafter,
    FittedExits,
    Floats,
    Ints,
    LayerChainCall,
    RoundCall,
    RoundDrafts,
    SequenceState,
    TreeCall,
    Work,
)
from specee.errors import ConfigurationError, RowError
from specee.types import ModelConfig, Sampling


class Verbs(Protocol):
    """What rounds are made of: see :class:`.Backend`, of which this is a part."""

    @property
    def config(self) -> ModelConfig:
        """See :attr:`.Backend.config`."""

    def advance(self, work: Work, to_layer: int) -> None:
        """See :meth:`.Backend.advance`."""

    def verify(self, work: Work, sampling: Seq[Sampling] | None) -> tuple[list[int], float, float]:
        """See :meth:`.Backend.verify`."""

    def draft(
        self, work: Work, sampling: Seq[Sampling], head: DraftHead | None = None
    ) -> tuple[Ints, Floats]:
        """See :meth:`.Backend.draft`."""

    def draft_chains(
        self, drafter: FittedDrafter, calls: Seq[ChainCall], head: DraftHead | None = None
    ) -> list[tuple[list[int], list[float]]]:
        """See :meth:`.Backend.draft_chains`."""

    def draft_trees(
        self, drafter: FittedDrafter, calls: Seq[TreeCall], head: DraftHead | None = None
    ) -> list[DraftedTree]:
        """See :meth:`.Backend.draft_trees`."""

    def leave_early(
        self,
        drafter: FittedDrafter,
        predictors: FittedExits,
        calls: Seq[ExitCall],
        head: DraftHead | None = None,
        *,
        confirm: bool,
    ) -> Exits:
        """See :meth:`.Backend.leave_early`."""


class Parts(NamedTuple):
    """What belongs to the drafts of all sequences; ``head`` is the drafter's."""

    drafter: FittedDrafter | None
    head: DraftHead | None
    exits: FittedExits | None


class Made:
    """Drafts of one round, in the order of their slots."""

    def __init__(self, call: RoundCall) -> None:
        self.call = call
        self.tip = call.sequence.length - 1
        self.tokens: list[int] = []
        self.parents: list[int] = []
        self.confidences: list[float] = []
        self.exits: list[int] = []
        self.copied = False

    def grow(self, tokens: Seq[int], parents: Seq[int], confidences: Seq[float]) -> None:
        """Drafts that are not rows yet, without what stands behind a token that ends the text."""
        place = {-1: -1}
        for index, parent in enumerate(parents):
            if parent in place and (parent < 0 or tokens[parent] not in self.call.ends):
                place[index] = len(place) - 1
        kept = list(place)[1:]
        self.tokens = [tokens[i] for i in kept]
        self.parents = [place[parents[i]] for i in kept]
        self.confidences = [confidences[i] for i in kept]

    def chain(self, tokens: Seq[int], confidences: Seq[float]) -> None:
        """The same, each below the one before."""
        self.grow(tokens, range(-1, len(tokens) - 1), confidences)

    def extend(self, wanted: LayerChainCall | ExitChainCall, token: int, confidence: float) -> bool:
        """A row below the newest one; whether there may be another."""
        [self.tip] = self.call.sequence.branch([token], None, self.tip)
        self.parents.append(len(self.tokens) - 1)
        self.tokens.append(token)
        self.confidences.append(confidence)
        over = token in self.call.ends or confidence < wanted.stop_below
        return not over and len(self.tokens) < wanted.length


class Drafting:
    """The drafts of one turn.

    ``made``: those of each call. ``draft``, ``draft_head``: seconds. Raises what the verbs raise, and
    ConfigurationError for drafts without what they need.
    """

    def __init__(self, backend: Verbs, calls: Seq[RoundCall], parts: Parts) -> None:
        self._backend, self._parts = backend, parts
        self.made = [Made(call) for call in calls]
        self.draft = self.draft_head = 0.0
        for call in calls:
            self._check(call.drafts)

    def _check(self, drafts: RoundDrafts | None) -> None:
        """Before anything is drafted."""
        if drafts is None:
            return
        if isinstance(drafts, LayerChainCall):
            layers = self._backend.config.num_layers
            if not 1 <= drafts.layer < layers:  # behind the last one there is nothing to verify
                raise RowError(
                    f"cannot draft at layer {drafts.layer} of {layers}: allowed are 1..{layers - 1}"
                )
            return
        if self._parts.drafter is None:
            raise ConfigurationError("a round with drafts needs a drafter: give one")
        if isinstance(drafts, ExitChainCall):
            if self._parts.exits is None:
                raise ConfigurationError("a round with predicted exits needs exit predictors: give some")
            if unknown := [layer for layer in drafts.layers if layer not in self._parts.exits.layers]:
                raise RowError(
                    f"layer {unknown[0]} has no exit predictor: allowed are {self._parts.exits.layers}"
                )

    def run(self) -> None:
        """What is drafted before it is rows comes first: a block drafts beside no rows."""
        self._copy()
        begin = time.perf_counter()
        self._block()
        if any(made.tokens and not made.copied for made in self.made):
            self.draft += time.perf_counter() - begin
        for made in self.made:
            if made.tokens:
                made.call.sequence.branch(made.tokens, made.parents)
        self._layers()
        self._exits()

    def _copy(self) -> None:
        """What the text itself offers: a few microseconds, but for a prompt that is learnt."""
        for made in self.made:
            if made.call.copies is not None:
                tokens, confidence = copied(made.call.copies, made.call.sequence)
                made.chain(tokens, [confidence] * len(tokens))
                made.copied = bool(tokens)

    def _block(self) -> None:
        """Chains, then trees."""
        drafter, head = self._parts.drafter, self._parts.head
        able = [made for made in self.made if not made.copied and self._known(made.call.sequence)]
        chains = [(made, made.call.drafts) for made in able if isinstance(made.call.drafts, ChainCall)]
        trees = [(made, made.call.drafts) for made in able if isinstance(made.call.drafts, TreeCall)]
        if chains:
            assert drafter is not None
            found = self._backend.draft_chains(drafter, [wanted for _, wanted in chains], head)
            for (made, _), chain in zip(chains, found, strict=True):
                made.chain(*chain)
        if trees:
            assert drafter is not None
            grown = self._backend.draft_trees(drafter, [wanted for _, wanted in trees], head)
            for (made, _), tree in zip(trees, grown, strict=True):
                made.grow(tree.tokens, tree.parents, tree.chances)

    def _known(self, state: SequenceState) -> bool:
        layers = self._backend.config.num_layers
        return state.length > 1 and state.kept > 0 and state.row(state.length - 2).done == layers

    def _layers(self) -> None:
        """A draft a turn for all chains of exit layers that go on, side by side."""
        wanting = [(made, made.call.drafts) for made in self.made if not made.copied]
        still = [(made, wanted) for made, wanted in wanting if isinstance(wanted, LayerChainCall)]
        while still:
            begin = time.perf_counter()
            for layer in sorted({wanted.layer for _, wanted in still}):
                self._backend.advance(_tips(made for made, wanted in still if wanted.layer >= layer), layer)
            middle = time.perf_counter()
            self.draft += middle - begin
            going = set()
            for head in {wanted.head for _, wanted in still}:
                group = [(made, wanted) for made, wanted in still if wanted.head is head]
                options = [wanted.sampling for _, wanted in group]
                tokens, shares = self._backend.draft(_tips(made for made, _ in group), options, head)
                for pair, token, share in zip(group, tokens.tolist(), shares.tolist(), strict=True):
                    if pair[0].extend(pair[1], token, share):
                        going.add(pair[0])
            self.draft_head += time.perf_counter() - middle
            still = [pair for pair in still if pair[0] in going]

    def _exits(self) -> None:
        """The same for chains that predictors let go; they end where no predictor is sure."""
        wanting = [(made, made.call.drafts) for made in self.made if not made.copied]
        still = [(made, wanted) for made, wanted in wanting if isinstance(wanted, ExitChainCall)]
        still = [pair for pair in still if pair[1].layers and _guessable(pair[0].call.sequence)]
        while still:
            drafter, head, exits = self._parts
            assert drafter is not None
            assert exits is not None
            calls = [_leaving(made, wanted) for made, wanted in still]
            left = self._backend.leave_early(drafter, exits, calls, head, confirm=False)
            self.draft += left.draft + left.layers
            going = []
            for pair, (layer, token, chance) in zip(still, left.exits, strict=True):
                if layer:
                    pair[0].exits.append(layer)
                    if pair[0].extend(pair[1], token, chance):
                        going.append(pair)
            still = going


def _tips(drafts: Iterable[Made]) -> Work:
    return [(made.call.sequence, [made.tip]) for made in drafts]


def _guessable(state: SequenceState) -> bool:
    """Whether the block can guess after rows that wait: a state before the first of them is kept."""
    return 0 < state.frontier[-1] < state.length and state.kept > 0


def _leaving(made: Made, wanted: ExitChainCall) -> ExitCall:
    return ExitCall(
        made.call.sequence, wanted.column, made.tip, wanted.layers, wanted.threshold, wanted.sampling
    )
