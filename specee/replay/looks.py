"""Shadow tokens out of a record, by the rules of :mod:`specee.engine.shadows`."""

from __future__ import annotations

from typing import NamedTuple

from specee.policies import Needs, Shadow, ShadowTokens
from specee.replay.trace import Text


class Look(NamedTuple):
    """What a shadow shows, and the states that passed the head for it."""

    shown: tuple[ShadowTokens, ...]
    states: int


def look(text: Text, shadow: Shadow, needs: Needs, length: int, emitted: int) -> Look:
    """After a step that brought the text to ``length`` tokens, ``emitted`` of them new.

    Of a prompt only what was recorded can be seen. Nothing is, where no position can be.
    """
    newest = length - 1  # has no next token yet
    wanted = emitted if shadow.positions is None else shadow.positions
    begin = newest - min(wanted, needs.shadow_positions, newest - text.first)
    generated = text.prompt - 1  # the first position whose next token was generated
    judged = text.layers in needs.shadow_layers and begin < generated
    begin = begin if judged else max(begin, generated)
    if begin >= newest:
        return Look((), 0)
    rows = slice(begin - text.first, newest - text.first)
    shown = [
        ShadowTokens(
            shadow.sequence,
            layer,
            tuple(text.matches[rows, layer - 1].tolist()),
            tuple(text.confidences[rows, layer - 1].tolist()),
        )
        for layer in shadow.layers
    ]
    return Look(tuple(shown), (newest - begin) * (len(shadow.layers) + judged))
