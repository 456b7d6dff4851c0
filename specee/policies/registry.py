"""Policies by name, and with settings."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable
from typing import Any

from specee.errors import ConfigurationError
from specee.policies import dynamic_exit
from specee.policies.auto import Auto
from specee.policies.autoregressive import Autoregressive
from specee.policies.drafter import Drafter
from specee.policies.drafter_tree import DrafterTrees
from specee.policies.layerskip import LayerSkip
from specee.policies.layerskip_adaptive import LayerSkipAdaptive
from specee.policies.plans import Policy
from specee.policies.prompt_lookup import PromptLookup
from specee.policies.specee import SpecEE
from specee.policies.specee_tree import SpecEETrees
from specee.policies.threshold import Threshold

_POLICIES: dict[str, Callable[..., Policy]] = {
    **{
        policy.name: policy
        for policy in (
            Auto,
            Autoregressive,
            Drafter,
            DrafterTrees,
            LayerSkip,
            LayerSkipAdaptive,
            PromptLookup,
            SpecEE,
            SpecEETrees,
            Threshold,
        )
    },
    dynamic_exit.NAME: dynamic_exit.make_del,
}


def policy_names() -> tuple[str, ...]:
    """Every policy there is."""
    return tuple(sorted(_POLICIES))


def make_policy(policy: str | Policy) -> Policy:
    """A fresh policy for ``"name"`` or ``"name:setting=value,..."``; a policy object is returned as it is.

    For example ``"layerskip:exit_layer=24,speculation_length=2"``. Settings are the arguments of the policy's
    class. An object serves one generation at a time. Raises ConfigurationError for an unknown name or
    setting, or a value that is not allowed.
    """
    if isinstance(policy, type):
        raise ConfigurationError(
            f"policy={policy!r} is a class: pass an object of it, {policy.__name__}(...)"
        )
    if not isinstance(policy, str):
        missing = [verb for verb in ("begin", "plan", "observe") if not hasattr(policy, verb)]
        if missing:
            raise ConfigurationError(
                f"policy={policy!r}: allowed are a name ({', '.join(policy_names())}) or an object with "
                f"begin, plan and observe; this one lacks {', '.join(missing)}"
            )
        return policy
    name, _, said = policy.partition(":")
    if name not in _POLICIES:
        raise ConfigurationError(f"policy={policy!r}: allowed are {', '.join(policy_names())}")
    return _POLICIES[name](**_settings(name, said))


def _settings(name: str, said: str) -> dict[str, Any]:
    known = inspect.signature(_POLICIES[name]).parameters
    found: dict[str, Any] = {}
    for item in said.split(",") if said else []:
        key, equals, value = (part.strip() for part in item.partition("="))
        if key not in known or not equals or key in found:
            allowed = ", ".join(known) or "none"
            raise ConfigurationError(
                f"policy {name}: {item!r} is not understood; settings are given as key=value, each once, and "
                f"those of {name} are: {allowed}"
            )
        try:
            found[key] = value if isinstance(known[key].default, str) else _value(value)
        except (ValueError, SyntaxError) as error:
            raise ConfigurationError(
                f"policy {name}: {key}={value!r} is no value: give a number, true or false"
            ) from error
    return found


def _value(text: str) -> Any:
    """Raises ValueError, SyntaxError."""
    return ast.literal_eval(text.capitalize() if text in ("true", "false") else text)
