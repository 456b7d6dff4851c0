"""Policies in turns with plain decoding, on one prompt after the other, in one process.

In a turn every policy continues the same prompt twice, A B C C B A, so that what drifts while a turn lasts
weighs on all alike. Decoding is greedy, and every run is compared with plain decoding's tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ..progress import Meter
from . import spent
from .lossless import PLAIN
from .spent import Spent, together
from .tally import first_difference

Difference = dict[str, int | None]


class Turn(NamedTuple):
    """One prompt: what every policy spent, and where tokens first differed from plain decoding's."""

    spent: dict[str, Spent]
    differing: dict[str, Difference]


@dataclass(frozen=True)
class Bench:
    """A loaded model, and how prompts are continued; without ``ends`` no text ends before ``tokens``.

    ``passes``: 2, or 1 for a comparison that need not be fair within a turn: then every other turn goes
    backwards.
    """

    model: Any
    tokens: int
    ends: bool = False
    passes: int = 2

    def compare(self, texts: Sequence[list[int]], policies: Sequence[str], meter: Meter) -> Contest:
        """A turn for each prompt, with plain decoding; the meter is told of :meth:`work`."""
        chosen = list(dict.fromkeys([PLAIN, *policies]))
        orders = (chosen, chosen[::-1])
        turns = []
        for index, text in enumerate(texts):
            order = [policy for one in range(self.passes) for policy in orders[(index + one) % 2]]
            turns.append(self._turn(text, order, meter))
        return Contest(turns)

    def work(self, texts: int, policies: int) -> int:
        """Tokens of a comparison of so many policies beside plain decoding, at most."""
        return self.passes * texts * (1 + policies) * self.tokens

    def warm_up(self, text: list[int], policies: Sequence[str]) -> None:
        """A few tokens of each, that are not counted."""
        for policy in (PLAIN, *policies):
            replace(self, tokens=min(self.tokens, 8))._once(text, policy)

    def _turn(self, text: list[int], order: Sequence[str], meter: Meter) -> Turn:
        runs: list[tuple[str, Sequence[int], Spent]] = []
        for policy in order:
            runs.append((policy, *self._once(text, policy)))
            meter.advance(self.tokens)
        plain = next(tokens for policy, tokens, _ in runs if policy == PLAIN)
        differing: dict[str, Difference] = {}
        for policy, tokens, _ in runs:
            if difference := first_difference(plain, tokens):
                differing.setdefault(policy, difference)
        policies = sorted(dict.fromkeys(order), key=lambda policy: policy != PLAIN)
        return Turn(
            {policy: together(one for name, _, one in runs if name == policy) for policy in policies},
            differing,
        )

    def _once(self, text: list[int], policy: str) -> tuple[Sequence[int], Spent]:
        options: dict[str, Any] = {} if self.ends else {"eos_token_id": []}
        result = self.model.generate(
            [text],
            max_new_tokens=self.tokens,
            do_sample=False,
            repetition_penalty=1.0,
            policy=policy,
            return_dict=True,
            **options,
        )
        return result.tokens[0], spent.of(result.statistics)


@dataclass(frozen=True)
class Contest:
    """The turns of the same policies, one for each prompt."""

    turns: list[Turn]

    @property
    def policies(self) -> list[str]:
        """Plain decoding first."""
        return list(self.turns[0].spent)

    def total(self, policy: str) -> Spent:
        """Of all turns."""
        return together(turn.spent[policy] for turn in self.turns)

    def ratio(self, policy: str, other: str = PLAIN, *, seconds: str = "decode") -> dict[str, float]:
        """How many times as fast as ``other``: of the totals, and spread over turns.

        ``seconds``: ``"decode"`` or ``"request"``. A turn that decoded nothing says nothing of decoding.
        """

        def of(mine: Spent, theirs: Spent) -> float:
            return float(getattr(theirs, seconds) / getattr(mine, seconds))

        pairs = [(turn.spent[policy], turn.spent[other]) for turn in self.turns]
        pairs = [pair for pair in pairs if all(getattr(one, seconds) for one in pair)]
        if not pairs:
            return dict.fromkeys(("total", "median", "p10", "p90", "min", "max"), 1.0)
        ratios = [of(*pair) for pair in pairs]
        low, middle, high = (float(value) for value in np.percentile(ratios, [10, 50, 90]))
        total = of(*(together(column) for column in zip(*pairs, strict=True)))
        spread = {"median": middle, "p10": low, "p90": high, "min": min(ratios), "max": max(ratios)}
        return {"total": total, **spread}

    @property
    def differing(self) -> dict[str, list[Difference]]:
        """First differences, of policies and prompts that have any."""
        found: dict[str, list[Difference]] = {}
        for index, turn in enumerate(self.turns):
            for policy, difference in turn.differing.items():
                found.setdefault(policy, []).append({"prompt": index, **difference})
        return found

    def figures(self, policy: str) -> dict[str, Any]:
        """What is reported of a policy."""
        total = self.total(policy)
        return {
            "tokens_s": total.speed,
            "decode": self.ratio(policy),
            "request": self.ratio(policy, seconds="request"),
            "shadow": total.shadow_shares,
            "tokens_per_round": total.tokens / max(1, total.sources.total()),
            "drafted": total.drafted,
            "acceptance": total.acceptance,
            "sources": dict(total.sources.most_common()),
            "lengths": dict(sorted(total.lengths.items())),
        }

    def part(self, label: str, **facts: Any) -> dict[str, Any]:
        """What is reported of all of them."""
        policies = {policy: self.figures(policy) for policy in self.policies}
        return {
            "label": label,
            **facts,
            "prompts": len(self.turns),
            "policies": policies,
            "differing": self.differing,
        }


def merged(contests: Sequence[Contest]) -> Contest:
    """One of all their turns."""
    return Contest([turn for contest in contests for turn in contest.turns])
