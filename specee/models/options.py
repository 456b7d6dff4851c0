"""Typed access to the options of a configuration file, with errors that name file, key and value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from specee.errors import CheckpointError

# No size of a real model comes near; beyond it a file is damaged and products of sizes get absurd.
LARGEST = 2**31 - 1
# Each layer is listed before any tensor is looked for, so this one has to be small enough to list.
MOST_LAYERS = 10_000


class Options:
    """A mapping of options read from ``where``; a missing key falls back to ``defaults``."""

    def __init__(
        self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None
    ) -> None:
        self.values = {**(defaults or {}), **values}
        self.where = where

    def get(self, key: str, default: Any = None) -> Any:
        """The raw value; an explicit null counts as given."""
        return self.values.get(key, default)

    def integer(self, key: str, default: int | None = None, *, least: int = 1, most: int = LARGEST) -> int:
        """An integer from ``least`` to ``most``; null or absent means ``default``, an error without one."""
        value = self.values.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(key, value, f"an integer from {least} to {most}")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive finite number; null or absent means ``default``, an error without one."""
        value = self.values.get(key)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(key, value, "a positive number")
        if not (math.isfinite(value) and value > 0):
            raise self.error(key, value, "a positive number")
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false; null or absent means ``default``."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(key, value, "true or false")
        return value

    def error(self, key: str, value: Any, allowed: str) -> CheckpointError:
        """The error for a bad or missing value (to be raised by the caller)."""
        if value is None and key not in self.values:
            return CheckpointError(
                f"{self.where}: {key!r} is missing; it must be {allowed}. Fetch the file again."
            )
        return CheckpointError(f"{self.where}: {key!r} is {value!r}; it must be {allowed}.")
