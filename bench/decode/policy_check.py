"""Whether policies can be measured with a model, before it is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from specee.models.checkpoint import Checkpoint
from specee.models.packaged import packaged_file
from specee.policies import ModelView, make_policy


def has_drafter(checkpoint: Checkpoint) -> bool:
    """Whether a speculator file comes with the package for it. Raises CheckpointError."""
    return packaged_file(checkpoint) is not None


def check_policies(policies: Iterable[str], checkpoint: Checkpoint) -> None:
    """Raise ConfigurationError for one that does not fit the model and its packaged speculator."""
    view = ModelView(checkpoint.config.num_layers, drafter=1.0 if has_drafter(checkpoint) else None)
    for policy in policies:
        make_policy(policy).begin(view)
