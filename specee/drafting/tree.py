"""The drafts of one sequence in one round: speculative rows on top of its newest committed one."""

from __future__ import annotations

from collections.abc import Sequence as Seq

import numpy as np
import numpy.typing as npt

from specee.backends.protocol import SequenceState
from specee.policies import Draft, Pruned
from specee.types import Sampling

Doubles = npt.NDArray[np.float64]


class DraftTree:
    """Drafted tokens as nodes; node 0 is the newest committed row, which all others descend from.

    ``slots[i]`` is the row of node i. ``text`` is the sequence's text up to node 0; ``sampling`` draws its
    tokens; ``ends`` are tokens after which there is nothing to draft. ``distributions[i]``, filled where
    classical rejection sampling needs it, is what node i was drawn from, (vocab_size,), None for a choice
    without chance. ``exits``: layers where a predictor let rows go, for a source that has some. ``likely``:
    what may come after some nodes, for predictors to look at; ``pruned``: nodes that they ruled out.
    """

    __slots__ = (
        "_children",
        "_deepest",
        "_open",
        "confidences",
        "distributions",
        "draft",
        "ends",
        "exits",
        "likely",
        "parents",
        "pruned",
        "rejection",
        "sampling",
        "slots",
        "state",
        "text",
        "tokens",
    )

    def __init__(
        self,
        draft: Draft,
        state: SequenceState,
        text: Seq[int],
        sampling: Sampling,
        ends: frozenset[int],
        *,
        rejection: bool = False,
    ) -> None:
        self.draft = draft
        self.state = state
        self.text = text
        self.sampling = sampling
        self.ends = ends
        self.rejection = rejection
        self.slots = [len(text) - 1]
        self.tokens = [text[-1]]
        self.parents = [-1]
        self.confidences: list[float] = []
        self.exits: list[int] = []
        self.likely: dict[int, list[int]] = {}
        self.pruned: list[Pruned] = []
        self.distributions: list[Doubles | None] = [None]
        self._children: dict[tuple[int, int], int] = {}
        self._deepest = 0
        self._open = draft.length > 0

    @property
    def drafted(self) -> int:
        """Nodes without the root."""
        return len(self.slots) - 1

    @property
    def shown(self) -> bool:
        """Whether there is anything to tell of it: nodes, or some that were ruled out."""
        return bool(len(self.slots) > 1 or self.pruned)

    @property
    def open(self) -> bool:
        """Whether the plan wants more drafts on this tree."""
        return self._open

    @property
    def tip(self) -> int:
        """Slot of the newest node."""
        return self.slots[-1]

    @property
    def depth(self) -> int:
        """Most drafts in a row, those that were ruled out among them."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return max(self._deepest, *depths)

    def child(self, node: int, token: int) -> int | None:
        """The child of ``node`` with that token, None if there is none."""
        return self._children.get((node, token))

    def path(self, node: int) -> list[int]:
        """Tokens from below the root to ``node``."""
        tokens: list[int] = []
        while node > 0:
            tokens.append(self.tokens[node])
            node = self.parents[node]
        return tokens[::-1]

    def children(self, node: int) -> list[int]:
        """Children of ``node`` in the order they were drafted."""
        return [child for (parent, _), child in self._children.items() if parent == node]

    def extend(self, tokens: Seq[int], confidence: float, distribution: Doubles | None = None) -> None:
        """A chain of drafts below the newest node, cut where the plan or the text ends.

        Closes the tree after a token whose confidence is under the plan's ``stop_below``.
        """
        self.chain(tokens, [confidence] * len(tokens), distribution)

    def chain(self, tokens: Seq[int], confidences: Seq[float], distribution: Doubles | None = None) -> None:
        """The same where each token has a confidence of its own."""
        count = 0
        for token, confidence in zip(tokens[: self.draft.length - self.drafted], confidences, strict=False):
            count += 1
            if token in self.ends or confidence < self.draft.stop_below:
                self._open = False
                break
        self.graft(tokens[:count], None, len(self.slots) - 1, confidences[:count], distribution)
        self._open = self._open and self.drafted < self.draft.length

    def graft(
        self,
        tokens: Seq[int],
        parents: Seq[int] | None,
        node: int,
        confidences: Seq[float],
        distribution: Doubles | None = None,
    ) -> None:
        """Any nodes below ``node``.

        ``parents`` are those of :meth:`.SequenceState.branch`, indices of ``tokens`` or -1 for ``node``;
        None is a chain. Siblings need different tokens; where ``distribution`` is given, a later sibling's is
        conditional on the earlier ones (:func:`specee.acceptance.rejection_token`), so siblings come in
        calls of their own.
        """
        first = len(self.slots)
        self.slots += self.state.branch(tokens, parents, self.slots[node])
        for index, token in enumerate(tokens):
            before = index - 1 if parents is None else parents[index]
            parent = node if before < 0 else first + before
            self.tokens.append(token)
            self.parents.append(parent)
            self._children[parent, token] = first + index
        self.confidences += confidences
        self.distributions += [distribution] * len(tokens)

    def grow(
        self, tokens: Seq[int], parents: Seq[int], chances: Seq[float], likely: Seq[list[int]] = ()
    ) -> None:
        """A whole tree below the root, as :class:`.DraftedTree` has it, without what follows an end."""
        place: dict[int, int] = {-1: -1}
        kept: list[int] = []
        for index, parent in enumerate(parents):
            if parent in place and (parent < 0 or tokens[parent] not in self.ends):
                place[index] = len(kept)
                kept.append(index)
        self.graft(
            [tokens[i] for i in kept], [place[parents[i]] for i in kept], 0, [chances[i] for i in kept]
        )
        known = [likely[0], *[likely[1 + index] for index in kept]] if likely else []
        self.likely = {node: after for node, after in enumerate(known) if after}
        self.close()

    def retain(self, nodes: Seq[int]) -> None:
        """Drop all nodes but these, ascending, the root first; a node stays with its parent."""
        self._deepest = self.depth
        place = {node: at for at, node in enumerate(nodes)}
        self.slots = [self.slots[node] for node in nodes]
        self.tokens = [self.tokens[node] for node in nodes]
        self.parents = [-1, *[place[self.parents[node]] for node in nodes[1:]]]
        self.confidences = [self.confidences[node - 1] for node in nodes[1:]]
        self.distributions = [self.distributions[node] for node in nodes]
        self.likely = {place[node]: after for node, after in self.likely.items() if node in place}
        pairs = zip(self.parents[1:], self.tokens[1:], strict=True)
        self._children = {pair: node for node, pair in enumerate(pairs, start=1)}

    def turn_to(self, draft: Draft) -> None:
        """Open again for another draft: the one before had nothing to offer."""
        self.draft = draft
        self._open = draft.length > 0

    def close(self) -> None:
        """No more drafts on this tree."""
        self._open = False
