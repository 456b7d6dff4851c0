"""What passes between a policy and the engine: plain data, both ways.

What is made anew at every step is a named tuple, which costs a third of a frozen dataclass; what names a
source is a dataclass, which equals only its own kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from specee.policies.latency import Latency


class ExitView(NamedTuple):
    """What a policy sees of exit predictors.

    ``layers`` that have one, ascending; ``shares`` of the tokens held out in fitting that left first at each.
    ``thresholds``, the most careful one first, with the mean of ``losses``, the share of tokens that are not
    the full model's, over so many ``generations`` of approximate decoding; empty where nothing was measured
    with the model's weights in their format.
    """

    layers: tuple[int, ...]
    shares: tuple[float, ...]
    thresholds: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    generations: int = 0


class ModelView(NamedTuple):
    """What a policy sees of the model.

    ``layers`` counts its layers; ``adapted`` has a pair for each layer that can draft with ``adapted=True``:
    the layer, and the bytes of its draft head over those of the model's own. ``drafter`` is what a draft of
    the speculator's block reads, its head included, over the same; None where there is no block. ``trimmed``:
    whether every layer's draft head is the model's own, trimmed to a draft vocabulary, without adapters.
    ``exits``: the speculator's exit predictors, None without. ``fitted``: those of ``adapted`` that have an
    adapter of their own.
    """

    layers: int
    adapted: tuple[tuple[int, float], ...] = ()
    drafter: float | None = None
    trimmed: bool = False
    exits: ExitView | None = None
    fitted: tuple[int, ...] = ()


class Needs(NamedTuple):
    """What a policy wants to have ready before it plans.

    ``sources``: those that plans will name, as far as they are known. ``shadow_layers``: layers, ascending,
    1..num_layers, whose outputs are kept for :class:`Shadow`, of the latest ``shadow_positions`` committed
    positions. ``latency``: whether observations carry measured times.
    """

    sources: tuple[DraftSource, ...] = ()
    shadow_layers: tuple[int, ...] = ()
    shadow_positions: int = 0
    latency: bool = False


class SequenceView(NamedTuple):
    """What a policy sees of one unfinished sequence.

    ``length`` counts committed positions, ``frontier[l]`` those done at layer l (one entry a layer),
    ``remaining`` the tokens it may still be given, which is also the most rows a plan may add to it, plus
    one.
    """

    id: int
    length: int
    frontier: tuple[int, ...]
    remaining: int

    @property
    def fresh(self) -> bool:
        """More than the newest token is waiting to be computed: a prompt, whole or in part."""
        return self.frontier[0] < self.length - 1


class Observation(NamedTuple):
    """All unfinished sequences at the start of a step; never empty.

    ``latency`` is None unless the policy needs it; it is the same object until the measurements change.
    """

    sequences: tuple[SequenceView, ...]
    latency: Latency | None = None


@dataclass(frozen=True)
class ExitLayer:
    """Draft with layers 1 to ``layer`` and a head on the hidden state after it.

    The head is the model's own; with ``adapted``, the speculator's: an adapter for that layer, and the
    rows of the head that belong to its draft vocabulary.
    """

    layer: int
    adapted: bool = False


@dataclass(frozen=True)
class NgramLookup:
    """Draft by copying what followed an earlier occurrence of the latest tokens, in prompt or output.

    The longest suffix of ``longest`` to ``shortest`` tokens that occurred before is looked up. Costs no
    layer and no head (Saxena, "Prompt lookup decoding", 2023).
    """

    longest: int = 4
    shortest: int = 2


@dataclass(frozen=True)
class DrafterBlock:
    """Draft with the speculator's block: one layer on the model's states, with its own keys and values.

    It costs no layer of the model: EAGLE (Li et al., ICML 2024).
    """


@dataclass(frozen=True)
class PredictedExit:
    """Draft with as many layers as it takes until an exit predictor is sure of the token: SpecEE, verified.

    ``threshold``: of its chance. The token is the likeliest of the block's candidates by the layer where the
    row leaves; where none is sure, drafting ends. (Xu et al., ISCA 2025)
    """

    threshold: float = 0.5


@dataclass(frozen=True)
class DrafterTree:
    """Draft a tree with the speculator's block, by what it finds likeliest: EAGLE-2 (Li et al., EMNLP 2024).

    At most ``depth`` drafts in a row; at each depth ``width`` nodes at most get children, and each of them
    ``children`` at most.
    """

    depth: int = 8
    width: int = 4
    children: int = 4


@dataclass(frozen=True)
class PredictedTree(DrafterTree):
    """The same, pruned on the way down by exit predictors: SpecEE's trees (Xu et al., ISCA 2025).

    Where a node's predictor has a chance over ``threshold``, the likeliest of the block's candidates after
    the node is taken to be what the last layer will say: all other branches below it go no deeper.
    """

    threshold: float = 0.5


DraftSource: TypeAlias = ExitLayer | NgramLookup | DrafterBlock | DrafterTree | PredictedExit | PredictedTree
"""Where drafts come from; :mod:`specee.drafting` has what each stands for."""


class DraftCost(NamedTuple):
    """What one drafted token costs: layers that its row goes through, and reads of the head's weights.

    ``head`` is 1 for the model's own head, less for a trimmed one, 0 for none.
    """

    layers: int
    head: float


class Draft(NamedTuple):
    """Draft for one sequence: at most ``length`` tokens, none if 0.

    Drafting ends early after a token whose confidence is under ``stop_below`` (that token is still
    verified) and after one that ends the text. ``otherwise`` is what to draft, for the same sequence, where
    the source has nothing to offer; a draft of length 0 asks for nothing, and turns to nothing else.
    ``layers``, ascending: where the predictors of :class:`PredictedExit` and :class:`PredictedTree` are
    asked; for no other source.

    Of a tree ``length`` is how many nodes are verified at most, and a node's confidence is the probability of
    its whole path: none is verified whose path is under ``stop_below``, the likeliest first one aside, and
    the tree grows no deeper where all nodes that would get children have less than ``deepen_from`` together.
    """

    sequence: int
    source: DraftSource
    length: int
    stop_below: float = 0.0
    otherwise: Draft | None = None
    layers: tuple[int, ...] = ()
    deepen_from: float = 0.0

    @property
    def most(self) -> int:
        """Tokens that it, or what it turns to, drafts at most."""
        return self.length if self.otherwise is None else max(self.length, self.otherwise.most)


class Shadow(NamedTuple):
    """See, after the step, what ``layers`` would have drafted at committed positions (DEL's shadow tokens).

    ``positions``: how many of the latest positions that have a next token; fewer where fewer are kept. None
    is those that the plan's turns verified: up to, and with, the first one where the drafts went wrong.
    ``adapted``: with the speculator's heads. Layers must be among :attr:`Needs.shadow_layers`.
    """

    sequence: int
    layers: tuple[int, ...]
    positions: int | None = None
    adapted: bool = False


class NextToken(NamedTuple):
    """Take all pending positions of these sequences through every layer, and draw one token after each.

    ``turns``: how often this may be carried out before the policy is asked again, 1 or more. The engine takes
    as many together as it gives tokens out for (see :class:`.Generation`), so how many there are depends on
    its speed; there are fewer where a text ends, and one for a prompt, and where code of the user has a
    say. ``shadows`` are seen after the last of them.
    """

    sequences: tuple[int, ...]
    shadows: tuple[Shadow, ...] = ()
    turns: int = 1


class Speculate(NamedTuple):
    """Draft for each sequence named, verify all drafts in one pass, and keep what the full model confirms.

    ``turns``: as in :class:`NextToken`. There are fewer also after one that copied and where no more may
    still be given than is drafted, and one where the backend cannot draft by itself.
    """

    drafts: tuple[Draft, ...]
    shadows: tuple[Shadow, ...] = ()
    turns: int = 1


class Leave(NamedTuple):
    """The next token from the first of ``layers`` where a predictor's chance is over ``threshold``.

    Rows wait where they left, at most ``waiting`` of them before the newest one, which then goes through all
    layers and takes them along. With a ``tree``, which may be one of :class:`PredictedTree`, several tokens
    at once: a path of it leaves when all its nodes would, and where none does the whole tree is verified.
    """

    sequence: int
    layers: tuple[int, ...]
    threshold: float
    waiting: int = 16
    tree: Draft | None = None


class LeaveEarly(NamedTuple):
    """Approximate decoding, SpecEE as published: tokens may leave at a layer before the last, unverified.

    Keys and values of every layer are still those of the emitted text, computed later.
    """

    leaves: tuple[Leave, ...]
    shadows: tuple[Shadow, ...] = ()


Plan: TypeAlias = NextToken | Speculate | LeaveEarly
"""Every kind of plan; a union as policies grow."""


class Pruned(NamedTuple):
    """A draft that predictors ruled out: the layer that it went no deeper than, and its confidence."""

    layer: int
    confidence: float


class Round(NamedTuple):
    """What one sequence got from a plan.

    ``tokens`` were emitted, the first ``accepted`` of them drafted before, the last one (if there is one
    more) drawn by the full model. ``drafted`` tokens were proposed and verified, with ``confidences`` in the
    order they were drafted. ``source`` is None where nothing was drafted. ``exits``: the layers where a
    predictor let rows go, of the drafted tokens, or of the emitted one in approximate decoding (the last
    layer where none did). Of a :class:`DrafterTree`, ``path``
    says which drafts were accepted, counted from 0, and ``depth`` is the most drafts in a row; elsewhere the
    first ones were, and all are in a row. ``pruned``: drafts that were not verified, and that nothing above
    but ``depth`` counts; there is a source even where no other draft was left.
    """

    sequence: int
    tokens: tuple[int, ...]
    source: DraftSource | None = None
    drafted: int = 0
    accepted: int = 0
    confidences: tuple[float, ...] = ()
    path: tuple[int, ...] = ()
    depth: int = 0
    exits: tuple[int, ...] = ()
    pruned: tuple[Pruned, ...] = ()


class ShadowTokens(NamedTuple):
    """What one layer would have drafted at some positions of a sequence, oldest first.

    ``matches[i]``: whether its most likely token is the one that the full model gave there: the text's, in
    generated text, and the full model's most likely one within the prompt. ``confidences[i]``: the
    probability of the layer's token in the softmax of its logits.
    """

    sequence: int
    layer: int
    matches: tuple[bool, ...]
    confidences: tuple[float, ...]
    adapted: bool = False


class Times(NamedTuple):
    """Seconds in backend calls.

    Layers for drafts, heads for drafts (predictors of a :class:`PredictedTree` among them), layers for
    verification, its head, shadow tokens.
    """

    draft: float = 0.0
    draft_head: float = 0.0
    verify: float = 0.0
    head: float = 0.0
    shadow: float = 0.0

    @property
    def total(self) -> float:
        """All of them; what else a step takes is spent in Python."""
        return self.draft + self.draft_head + self.verify + self.head + self.shadow


class Outcome(NamedTuple):
    """What a plan gave each of its sequences, and the time of its backend calls.

    ``shadows`` has an entry for each layer of each :class:`Shadow` of the plan, in its order; those of a
    sequence that the step ended may be missing.
    """

    rounds: tuple[Round, ...]
    times: Times = Times()
    shadows: tuple[ShadowTokens, ...] = ()


class Policy(Protocol):
    """Decides what to run next. Same observations and outcomes, same plans."""

    @property
    def name(self) -> str:
        """Name in the registry."""

    def begin(self, model: ModelView) -> Needs:
        """Forget what was learnt, and get ready for a model.

        Returns what has to be there, so that a source that is missing is found before anything runs. Called
        before a generation, maybe twice. Raises ConfigurationError for settings that do not fit the model.
        """

    def plan(self, observation: Observation) -> Plan:
        """What to run in this step; must advance at least one sequence."""

    def observe(self, outcome: Outcome) -> None:
        """Learn from what the latest plan gave, once for each of its turns."""
