"""DEL: exit layer and speculation length chosen for each sequence and round.

Entezari Zarch et al., "DEL: Context-aware dynamic exit layer for efficient self-speculative decoding", 2025.
"""

from __future__ import annotations

from specee.errors import ConfigurationError
from specee.policies import settings
from specee.policies.measured import Measured
from specee.policies.plans import Policy
from specee.policies.published_del import PublishedDel

NAME = "del"


def make_del(
    *, faithful: bool = False, measured: bool = True, sampled: bool = True, adapted: bool = False
) -> Policy:
    """The policy ``del``.

    ``faithful``: the published method to the letter (:class:`.PublishedDel`), for comparison; the other
    settings do not apply then. Else it differs from the paper in three ways, two of which can be turned back:
    ``measured``, the objective is in measured seconds with the head counted, not in layers; ``sampled``,
    shadow tokens are taken of some layers in some rounds within a budget of time, not of all in all; and
    where no layer is worth more than plain decoding, nothing is drafted. ``adapted``: the speculator's exit
    layers. Raises ConfigurationError.
    """
    faithful = settings.flag(NAME, "faithful", faithful)
    measured, sampled = settings.flag(NAME, "measured", measured), settings.flag(NAME, "sampled", sampled)
    adapted = settings.flag(NAME, "adapted", adapted)
    if not faithful:
        return Measured(NAME, lookup=None, exits=(adapted,), measured=measured, sampled=sampled)
    if adapted or not (measured and sampled):
        raise ConfigurationError(
            f"policy {NAME}: faithful=True is the published method, to which no other setting applies"
        )
    return PublishedDel(NAME)
