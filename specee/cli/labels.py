"""Words for what drafted and where the time went, the same in tables and traces."""

from __future__ import annotations

from typing import Any

from specee.policies import DrafterBlock, DrafterTree, ExitLayer, NgramLookup, PredictedExit, PredictedTree

SHARES = {
    "draft": "draft",
    "draft_head": "draft head",
    "verify": "verify",
    "head": "head",
    "shadow": "shadow",
    "python": "Python",
}
"""Names of :attr:`.Statistics.shares` as people read them."""


def source_label(source: Any) -> str:
    """A draft source in words; one that is not built in is called what its type is called."""
    if isinstance(source, ExitLayer):
        return f"exit layer {source.layer}" + (", adapted" if source.adapted else "")
    if isinstance(source, DrafterBlock):
        return "drafter"
    if isinstance(source, PredictedExit):
        return f"exit predictors over {source.threshold:g}"
    if isinstance(source, PredictedTree):
        return f"pruned tree over {source.threshold:g}"
    if isinstance(source, DrafterTree):
        return "drafter tree"
    return "prompt lookup" if isinstance(source, NgramLookup) else type(source).__name__
