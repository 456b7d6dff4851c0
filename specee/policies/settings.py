"""Checks of what policies are told, with errors that say what is allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from specee.errors import ConfigurationError


def whole(policy: str, name: str, value: Any, least: int) -> int:
    """A whole number of at least ``least``. Raises ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ConfigurationError(
            f"policy {policy}: {name}={value!r}: allowed are whole numbers, {least} or more"
        )
    return int(value)


def share(policy: str, name: str, value: Any) -> float:
    """A number from 0 to 1. Raises ConfigurationError."""
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or math.isnan(value) or not 0 <= value <= 1:
        raise ConfigurationError(f"policy {policy}: {name}={value!r}: allowed are numbers from 0 to 1")
    return float(value)


def flag(policy: str, name: str, value: Any) -> bool:
    """True or False. Raises ConfigurationError."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"policy {policy}: {name}={value!r}: allowed are True and False")
    return value


def one_of(policy: str, name: str, value: str, allowed: Sequence[str]) -> str:
    """One of these words. Raises ConfigurationError."""
    if value not in allowed:
        raise ConfigurationError(f"policy {policy}: {name}={value!r}: allowed are {', '.join(allowed)}")
    return value


def exit_layer(policy: str, value: int | None, layers: int) -> int:
    """An exit layer of a model of ``layers`` layers; None is four fifths of the way up.

    Untrained middle layers draft badly, so the default is deep. Raises ConfigurationError outside
    1..layers-1.
    """
    if layers < 2:
        raise ConfigurationError(
            f"policy {policy} drafts with an exit layer, and a model of {layers} layer has none below its "
            "last: choose another policy"
        )
    if value is None:
        return min(layers - 1, max(1, round(layers * 0.8)))
    if not 1 <= value < layers:
        raise ConfigurationError(
            f"policy {policy}: exit_layer={value!r} of a model of {layers} layers: allowed are "
            f"1..{layers - 1}; the last layer is where tokens are verified"
        )
    return value
