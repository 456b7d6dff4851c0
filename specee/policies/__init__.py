"""Policies: small pure objects that look at counts and return plans; no tensors, no backends.

A new policy is a module with a class, and one name in :mod:`specee.policies.registry`; a new kind of plan or
draft source is plain data in :mod:`specee.policies.plans`.
"""

from specee.policies.autoregressive import Autoregressive
from specee.policies.latency import Latency
from specee.policies.layerskip import LayerSkip
from specee.policies.layerskip_adaptive import LayerSkipAdaptive
from specee.policies.plans import (
    Draft,
    DraftCost,
    DrafterBlock,
    DrafterTree,
    DraftSource,
    ExitLayer,
    ExitView,
    Leave,
    LeaveEarly,
    ModelView,
    Needs,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Policy,
    PredictedExit,
    PredictedTree,
    Pruned,
    Round,
    SequenceView,
    Shadow,
    ShadowTokens,
    Speculate,
    Times,
)
from specee.policies.prompt_lookup import PromptLookup
from specee.policies.registry import make_policy, policy_names
from specee.policies.threshold import Threshold

__all__ = [
    "Autoregressive",
    "Draft",
    "DraftCost",
    "DraftSource",
    "DrafterBlock",
    "DrafterTree",
    "ExitLayer",
    "ExitView",
    "Latency",
    "LayerSkip",
    "LayerSkipAdaptive",
    "Leave",
    "LeaveEarly",
    "ModelView",
    "Needs",
    "NextToken",
    "NgramLookup",
    "Observation",
    "Outcome",
    "Plan",
    "Policy",
    "PredictedExit",
    "PredictedTree",
    "PromptLookup",
    "Pruned",
    "Round",
    "SequenceView",
    "Shadow",
    "ShadowTokens",
    "Speculate",
    "Threshold",
    "Times",
    "make_policy",
    "policy_names",
]
