"""Shadow tokens: what layers would have drafted at positions whose token is known by now."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import NamedTuple, TypeAlias

from specee.backends.protocol import Backend, DraftHead
from specee.clock import Clock
from specee.drafting import DraftHeads
from specee.engine.sequence import ActiveSequence
from specee.policies import Shadow, ShadowTokens


class _Look(NamedTuple):
    """Where a shadow falls. ``judged``: some of ``slots`` are compared with the full model's own choice."""

    shadow: Shadow
    sequence: ActiveSequence
    slots: range
    judged: bool


# (index of a look, layer) -> tokens and confidences at its slots
_Drafts: TypeAlias = dict[tuple[int, int], tuple[list[int], list[float]]]


class Shadows:
    """Carries out the shadows of plans, after their step has been committed.

    ``kept`` are the layers whose outputs are kept. Within the prompt there is nothing to compare with but the
    full model's own choice, so there the last layer has to be among them; other positions need the text only.
    """

    def __init__(
        self,
        backend: Backend,
        sequences: Mapping[int, ActiveSequence],
        heads: DraftHeads,
        kept: Seq[int],
    ) -> None:
        self._backend = backend
        self._sequences = sequences
        self._heads = heads
        self._last = backend.config.num_layers
        self._judges = self._last in kept

    def see(
        self, shadows: Seq[Shadow], emitted: Mapping[int, Seq[int]], clock: Clock
    ) -> tuple[ShadowTokens, ...]:
        """What the layers would have drafted; ``emitted`` has the tokens that this step gave each sequence.

        Sequences that are over are left out, and so are those without a position to look at.
        """
        looks = [look for shadow in shadows if (look := self._look(shadow, emitted)) is not None]
        drafts = self._drafts(looks, clock)
        return tuple(
            [
                self._compared(look, layer, drafts[index, layer], drafts.get((index, self._last)))
                for index, look in enumerate(looks)
                for layer in look.shadow.layers
            ]
        )

    def _look(self, shadow: Shadow, emitted: Mapping[int, Seq[int]]) -> _Look | None:
        sequence = self._sequences[shadow.sequence]
        if sequence.finish_reason is not None:
            return None
        newest = len(sequence.text) - 1  # has no next token yet
        wanted = len(emitted.get(shadow.sequence, ())) if shadow.positions is None else shadow.positions
        begin = newest - min(wanted, sequence.state.kept)
        generated = len(sequence.request.prompt) - 1  # the first position whose next token was generated
        judged = self._judges and begin < generated
        begin = begin if judged else max(begin, generated)
        return _Look(shadow, sequence, range(begin, newest), judged) if begin < newest else None

    def _drafts(self, looks: Seq[_Look], clock: Clock) -> _Drafts:
        """One product for all that shares a head and layers."""
        groups: dict[tuple[DraftHead | None, tuple[int, ...]], list[int]] = defaultdict(list)
        for index, look in enumerate(looks):
            for head, listed in self._by_head(look).items():
                groups[head, tuple(listed)].append(index)
        found: _Drafts = {}
        for (head, layers), group in groups.items():
            work = [(looks[index].sequence.state, looks[index].slots) for index in group]
            tokens, confidences = clock.timed("shadow", self._backend.shadow, work, layers, head)
            columns = list(zip(layers, tokens.T.tolist(), confidences.T.tolist(), strict=True))
            begin = 0
            for index in group:
                end = begin + len(looks[index].slots)
                for layer, token, confidence in columns:
                    found[index, layer] = token[begin:end], confidence[begin:end]
                begin = end
        return found

    def _by_head(self, look: _Look) -> dict[DraftHead | None, list[int]]:
        shadow = look.shadow
        if not shadow.adapted:
            return {None: [*shadow.layers, *([self._last] if look.judged else [])]}
        by_head: dict[DraftHead | None, list[int]] = defaultdict(list)
        for layer in shadow.layers:
            by_head[self._heads.of(layer)].append(layer)
        if look.judged:
            by_head[None] = [self._last]
        return by_head

    def _compared(
        self,
        look: _Look,
        layer: int,
        drafts: tuple[list[int], list[float]],
        judge: tuple[list[int], list[float]] | None,
    ) -> ShadowTokens:
        tokens, confidences = drafts
        prompt, text = look.sequence.request.prompt, look.sequence.text
        matches = []
        for i, slot in enumerate(look.slots):
            inside = judge is not None and slot + 1 < len(prompt)
            matches.append(tokens[i] == (judge[0][i] if inside and judge else text[slot + 1]))
        shadow = look.shadow
        return ShadowTokens(shadow.sequence, layer, tuple(matches), tuple(confidences), shadow.adapted)
