"""What policies ask for and plan, as far as no model is needed: engine and replays refuse the same."""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from typing import Any, TypeVar

from specee.errors import ConfigurationError
from specee.policies.plans import (
    DrafterTree,
    ExitLayer,
    ExitView,
    ModelView,
    Needs,
    NgramLookup,
    Shadow,
)

Found = TypeVar("Found")


def checked_needs(needs: Any, policy: object, model: ModelView) -> Needs:
    """What ``policy.begin(model)`` returned, if it can be had. Raises ConfigurationError."""
    if not isinstance(needs, Needs):
        raise ConfigurationError(
            f"policy {policy!r}: its begin() returned {type(needs).__name__}; allowed is Needs"
        )
    sources, layers, positions = needs.sources, needs.shadow_layers, needs.shadow_positions
    sound = isinstance(sources, tuple) and isinstance(layers, tuple)
    sound = sound and all(_whole(layer) and 1 <= layer <= model.layers for layer in layers)
    if not sound or list(layers) != sorted(set(layers)) or not _whole(positions) or positions < 0:
        raise ConfigurationError(
            f"policy {policy!r} needs sources {sources!r}, and the outputs of layers {layers!r} of "
            f"{positions!r} positions: allowed are tuples, distinct whole layers, ascending, of "
            f"1..{model.layers}, and 0 positions or more"
        )
    return needs


def check_shadows(
    shadows: Sequence[Shadow], sequences: Collection[int], model: ModelView, kept: Container[int]
) -> None:
    """Raise ConfigurationError for a sequence, a layer or positions that cannot be looked at.

    ``kept``: the layers that the policy needs.
    """
    named = [(shadow.sequence, shadow.adapted) for shadow in shadows]
    if len(named) != len(set(named)):
        raise ConfigurationError(f"shadows of {named}: allowed is one a sequence, and one more adapted")
    for shadow in shadows:
        if shadow.sequence not in sequences:
            raise ConfigurationError(f"a shadow of sequence {shadow.sequence}: allowed are {list(sequences)}")
        if shadow.positions is not None and shadow.positions < 1:
            raise ConfigurationError(f"a shadow of {shadow.positions} positions: allowed are 1 or more")
        able = dict(model.adapted) if shadow.adapted else range(1, model.layers)
        wrong = [layer for layer in shadow.layers if layer not in kept or layer not in able]
        if wrong or not shadow.layers or len(set(shadow.layers)) != len(shadow.layers):
            raise ConfigurationError(
                f"a shadow of layers {shadow.layers}, adapted={shadow.adapted}: allowed are distinct layers "
                f"of 1..{model.layers - 1} that the policy's begin() asked for, and that have a draft head"
            )


def check_exit_layer(source: ExitLayer, layers: int) -> None:
    """Raise ConfigurationError where a model of ``layers`` layers has none such below its last."""
    if not 1 <= source.layer < layers:
        raise ConfigurationError(
            f"exit layer {source.layer} of a model of {layers} layers: allowed are 1..{layers - 1}; "
            "the last layer is where tokens are verified"
        )


def needed_exits(exits: Found | None) -> Found:
    """Exit predictors, in whatever form. Raises ConfigurationError if there are none."""
    if exits is None:
        raise ConfigurationError(
            "no exit predictors are loaded: load a speculator file that has some (specee fit), or use "
            "another policy"
        )
    return exits


def check_layers(layers: Sequence[int], threshold: float, exits: ExitView | None) -> None:
    """Raise ConfigurationError where predictors are to be asked that are not there, or with no threshold."""
    known = () if exits is None else exits.layers
    if list(layers) != sorted(set(layers)) or not set(layers) <= set(known) or not 0 <= threshold <= 1:
        raise ConfigurationError(
            f"early exits at layers {tuple(layers)} over a threshold of {threshold}: allowed are layers that "
            f"the speculator has exit predictors for, ascending ({known or 'none is loaded'}), and 0 to 1"
        )


def check_lookup(source: NgramLookup) -> None:
    """Raise ConfigurationError for lengths that are none."""
    if not 1 <= source.shortest <= source.longest:
        raise ConfigurationError(
            f"prompt lookup of {source.shortest} to {source.longest} tokens: the shortest must be 1 or "
            "more and not above the longest"
        )


def check_tree(source: DrafterTree) -> None:
    """Raise ConfigurationError for limits that are none."""
    for name in ("depth", "width", "children"):
        if not _whole(limit := getattr(source, name)) or limit < 1:
            raise ConfigurationError(f"a tree of {name}={limit!r}: allowed are whole numbers, 1 or more")


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
