"""Every draft source at hand by the same measured objective, none included."""

from __future__ import annotations

from specee.policies.measured import Measured
from specee.policies.plans import NgramLookup


class Auto(Measured):
    """Copies where the text repeats itself, else the speculator's block or exit layers, where they pay.

    Elsewhere it decodes plainly. Exit layers are the speculator's and the model's own, whichever is worth
    more: see :func:`.make_del`. Copies are :class:`.PromptLookup`'s, as long as they have proved to be worth.
    """

    name = "auto"

    def __init__(self) -> None:
        super().__init__(
            self.name, lookup=NgramLookup(), exits=(True, False), block=True, measured=True, sampled=True
        )
