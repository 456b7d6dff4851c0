"""The loop on a recorded text: observe, plan, look up what would have come of it, learn. Greedy only."""

from __future__ import annotations

import time

from specee.errors import ConfigurationError
from specee.policies import (
    Draft,
    DraftSource,
    ExitLayer,
    Latency,
    ModelView,
    NextToken,
    NgramLookup,
    Observation,
    Outcome,
    Plan,
    Policy,
    Round,
    SequenceView,
    Shadow,
    ShadowTokens,
    Speculate,
    make_policy,
)
from specee.policies.checks import check_exit_layer, check_lookup, check_shadows, checked_needs
from specee.replay.drafts import RecordedDrafts
from specee.replay.looks import look
from specee.replay.prices import Prices
from specee.replay.result import Replay, ReplayedRound
from specee.replay.trace import Text, Trace

_NOTHING = Draft(0, NgramLookup(), 0)


def replay(policy: str | Policy, trace: Trace, latency: Latency | None = None) -> Replay:
    """Run a policy over every text of a trace, anew for each.

    ``policy`` is what :func:`.make_policy` takes. ``latency``: prices that differ from the trace's. A text
    ends where the record does. Raises ConfigurationError for a policy, or a plan, that the record cannot
    serve: heads of a speculator are not recorded.
    """
    chosen = make_policy(policy)
    prices = Prices(latency or trace.latency, trace.layers)
    texts = tuple([_Simulation(chosen, text, prices, latency or trace.latency).run() for text in trace.texts])
    plain = sum(text.generated - 1 for text in trace.texts) * prices.plain
    return Replay(policy if isinstance(policy, str) else chosen.name, texts, plain)


class _Simulation:
    """Of one text."""

    def __init__(self, policy: Policy, text: Text, prices: Prices, latency: Latency) -> None:
        self._policy, self._text, self._prices = policy, text, prices
        self._layers = text.layers
        self._model = ModelView(self._layers)
        self._needs = checked_needs(policy.begin(self._model), policy, self._model)
        for source in self._needs.sources:
            _check_source(source, self._layers)
        self._latency = latency if self._needs.latency else None
        self._drafts = RecordedDrafts(text)
        self._latest: Plan | None = None

    def run(self) -> tuple[ReplayedRound, ...]:
        """Until the text is over."""
        rounds: list[ReplayedRound] = []
        length, done = self._text.prompt, 0
        while length < len(self._text):
            entry = self._step(length, done)
            rounds.append(entry)
            length += len(entry.round.tokens)
            done = length - 1
        return tuple(rounds)

    def _step(self, length: int, done: int) -> ReplayedRound:
        """``length`` tokens are there, ``done`` of them computed."""
        remaining = len(self._text) - length
        view = SequenceView(0, length, (done,) * self._layers, remaining)
        observation = Observation((view,), self._latency)
        begin = time.perf_counter()
        plan = self._policy.plan(observation)
        planning = time.perf_counter() - begin
        outcome = self._outcome(plan, view)
        begin = time.perf_counter()
        self._policy.observe(outcome)
        learning = time.perf_counter() - begin
        anew, self._latest = plan is not self._latest, plan
        seconds = self._prices.seconds(outcome.times)
        if not done:
            seconds -= self._prices.prompt(length)
        return ReplayedRound(length, remaining, plan, outcome, seconds, planning, learning, anew)

    def _outcome(self, plan: Plan, view: SequenceView) -> Outcome:
        length, text = view.length, self._text
        wish = _wish(plan)
        self._check(wish, view.remaining)
        self._check_looks(plan.shadows)
        drafted = self._drafts.draft(length, wish)
        layer, count = (drafted.layer, drafted.made) if drafted else (0, 0)
        times = self._prices.times(length - view.frontier[0], layer, count)
        after = length + 1 + (drafted.right if drafted else 0)
        tokens = text.words[length:after]
        entry = Round(0, tokens)
        if drafted:
            entry = Round(0, tokens, drafted.source, count, drafted.right, drafted.confidences)
        shown: list[ShadowTokens] = []
        for shadow in plan.shadows:
            if after < len(text):  # a text that is over is not looked at
                seen = look(text, shadow, self._needs, after, len(tokens))
                shown += seen.shown
                if seen.states:
                    times = times._replace(shadow=times.shadow + self._prices.look(seen.states))
        return Outcome((entry,), times, tuple(shown))

    def _check(self, wish: Draft, remaining: int) -> None:
        turn: Draft | None = wish
        while turn is not None:
            _check_source(turn.source, self._layers)
            if turn.sequence != 0 or not 0 <= turn.length < max(1, remaining):
                raise ConfigurationError(
                    f"a plan of {turn.length} drafts for sequence {turn.sequence}: allowed are at most "
                    f"{remaining - 1}, for sequence 0"
                )
            turn = turn.otherwise

    def _check_looks(self, shadows: tuple[Shadow, ...]) -> None:
        if any(shadow.adapted for shadow in shadows):
            raise ConfigurationError(
                "a shadow with adapted=True: heads of a speculator are not recorded; use adapted=False"
            )
        check_shadows(shadows, (0,), self._model, self._needs.shadow_layers)


def _wish(plan: Plan) -> Draft:
    if isinstance(plan, NextToken) and plan.sequences == (0,):
        return _NOTHING
    if isinstance(plan, Speculate) and len(plan.drafts) == 1:
        return plan.drafts[0]
    raise ConfigurationError(f"{plan}: allowed is a plan for the one sequence that there is, 0")


def _check_source(source: DraftSource, layers: int) -> None:
    if isinstance(source, ExitLayer):
        if source.adapted:
            raise ConfigurationError(
                f"exit layer {source.layer} with adapted=True: heads of a speculator are not recorded; "
                "replay the policy with adapted=False"
            )
        check_exit_layer(source, layers)
    elif isinstance(source, NgramLookup):
        check_lookup(source)
    else:
        raise ConfigurationError(f"draft source {source}: allowed are ExitLayer and NgramLookup")
