"""Whether policies can be measured with a model, before it is loaded."""

from __future__ import annotations

from collections.abc import Iterable

from specee.models.checkpoint import Checkpoint
from specee.models.packaged import packaged_speculator
from specee.policies import ExitView, ModelView, make_policy


def packaged_view(checkpoint: Checkpoint) -> ModelView:
    """What policies may draft with: the speculator that comes with the package. Raises CheckpointError."""
    layers, found = checkpoint.config.num_layers, packaged_speculator(checkpoint)
    if found is None:
        return ModelView(layers)
    drafter = None if found.drafter is None else 1.0
    if found.exits is None:
        return ModelView(layers, drafter=drafter)
    exits = ExitView(found.exits.layers, tuple(found.exits.exits.tolist()))
    return ModelView(layers, drafter=drafter, exits=exits)


def check_policies(policies: Iterable[str], checkpoint: Checkpoint, *, fitted: bool = True) -> None:
    """Raise ConfigurationError for one that does not fit the model and, if ``fitted``, its speculator."""
    view = packaged_view(checkpoint) if fitted else ModelView(checkpoint.config.num_layers)
    for policy in policies:
        make_policy(policy).begin(view)
