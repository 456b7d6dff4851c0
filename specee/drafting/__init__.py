"""Draft sources: what :data:`specee.policies.DraftSource` stands for.

A new source is plain data in :mod:`specee.policies.plans`, a drafter here, and one line in :func:`built_in`.
"""

from specee.drafting.drafter import Drafter, States, built_in
from specee.drafting.heads import DraftHeads
from specee.drafting.tree import DraftTree

__all__ = ["DraftHeads", "DraftTree", "Drafter", "States", "built_in"]
