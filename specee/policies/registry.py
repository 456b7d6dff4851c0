"""Policies by name."""

from __future__ import annotations

from collections.abc import Callable

from specee.errors import ConfigurationError
from specee.policies.autoregressive import Autoregressive
from specee.policies.plans import Policy

_POLICIES: dict[str, Callable[[], Policy]] = {
    "autoregressive": Autoregressive,
}


def policy_names() -> tuple[str, ...]:
    """Every policy there is."""
    return tuple(sorted(_POLICIES))


def make_policy(name: str) -> Policy:
    """A fresh policy. Raises ConfigurationError for an unknown name."""
    if not isinstance(name, str) or name not in _POLICIES:
        raise ConfigurationError(f"policy={name!r}: allowed are {', '.join(policy_names())}")
    return _POLICIES[name]()
