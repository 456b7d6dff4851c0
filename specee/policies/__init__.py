"""Policies: small pure objects that look at counts and return plans; no tensors, no backends.

A new policy is a module with a class, its plan types in :mod:`specee.policies.plans`, and one line in
:mod:`specee.policies.registry`.
"""

from specee.policies.plans import NextToken, Observation, Outcome, Plan, Policy, SequenceView
from specee.policies.registry import make_policy, policy_names

__all__ = [
    "NextToken",
    "Observation",
    "Outcome",
    "Plan",
    "Policy",
    "SequenceView",
    "make_policy",
    "policy_names",
]
