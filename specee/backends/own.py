"""What a backend takes back only if it has made it."""

from __future__ import annotations

from typing import TypeVar

from specee.errors import ConfigurationError, RowError

T = TypeVar("T")


def own(
    kind: type[T],
    value: object,
    what: str,
    maker: str,
    error: type[ConfigurationError] | type[RowError] = ConfigurationError,
) -> T:
    """``value``, if the cpu backend's ``maker`` made it; else raises ``error``. ``what``: many of them."""
    if not isinstance(value, kind):
        raise error(
            f"got a {type(value).__name__} where the cpu backend needs its own {what}; make them with {maker}"
        )
    return value
