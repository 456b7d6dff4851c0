"""Verbs with a drafter block and exit predictors that backends in torch share: one sequence at a time."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Seq
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from specee.backends.head_verbs import Draw, HeadVerbs, confidences
from specee.backends.plain_copies import CopiedText
from specee.backends.plain_drafts import Parts
from specee.backends.plain_rounds import run_rounds
from specee.backends.protocol import (
    Answer,
    AskCall,
    ChainCall,
    DraftedTree,
    DraftHead,
    ExitCall,
    ExitRows,
    Exits,
    FittedColumn,
    FittedDrafter,
    FittedExits,
    RankCall,
    RoundCall,
    RoundTurn,
    SequenceState,
    TreeCall,
    Work,
)
from specee.backends.reference_ask import ReferenceExitRows, ask
from specee.backends.reference_chain import Draw as DrawAfter
from specee.backends.reference_chain import ReferenceChain
from specee.backends.reference_drafter import ReferenceDrafter, checked_block, foreign
from specee.backends.reference_exits import ExitRow, ReferenceExits, behind_row, leave
from specee.backends.reference_sequence import ReferenceSequence
from specee.backends.reference_tree import ReferenceTree
from specee.errors import ConfigurationError, RowError
from specee.models.exit_parts import ExitParts
from specee.sampling import best, penalised
from specee.types import Sampling


class DrafterVerbs(HeadVerbs):
    """See :class:`specee.backends.protocol.Backend`, which documents every verb."""

    @abstractmethod
    def _embedding(self, token: int) -> Tensor:
        """The embedding of a token: (hidden_size,) fp32."""

    @abstractmethod
    def _head_tokens(self, head: DraftHead | None) -> int:
        """How many tokens ``head`` has. Raises ConfigurationError for one of another backend."""

    def run_rounds(
        self,
        calls: Seq[RoundCall],
        drafter: FittedDrafter | None = None,
        head: DraftHead | None = None,
        turns: int = 1,
        exits: FittedExits | None = None,
    ) -> list[RoundTurn]:
        """Drafts, verification and what stays, one after the other. Raises RowError, CapacityError."""
        self._named([(call.sequence, ()) for call in calls])
        return run_rounds(self, calls, drafter, head, turns, exits, self._whole_round)

    def _whole_round(self, calls: Seq[RoundCall], drafting: Parts) -> RoundTurn | None:
        """A turn in one piece, None where there is no such way."""
        return None

    def copies(self, longest: int, shortest: int) -> CopiedText:
        """N-grams of a text. Raises RowError."""
        return CopiedText(longest, shortest)

    @torch.no_grad()
    def draft_chains(
        self, drafter: FittedDrafter, calls: Seq[ChainCall], head: DraftHead | None = None
    ) -> list[tuple[list[int], list[float]]]:
        """A chain for each sequence, one after the other. Raises RowError, ConfigurationError."""
        named = self._drafting(drafter, [(call.sequence, call.column) for call in calls])
        chains = [ReferenceChain(drafter, *pair, self.config) for pair in zip(named, calls, strict=True)]
        return [chain.run(self._embedding, self._token_after(head)) for chain in chains]

    @torch.no_grad()
    def draft_trees(
        self, drafter: FittedDrafter, calls: Seq[TreeCall], head: DraftHead | None = None
    ) -> list[DraftedTree]:
        """A tree for each sequence, one after the other. Raises RowError, ConfigurationError."""
        named = self._drafting(drafter, [(call.sequence, call.column) for call in calls])
        for k in {call.likely for call in calls if call.likely}:
            self._check_likely(k, head)
        trees = [ReferenceTree(drafter, *pair, self.config) for pair in zip(named, calls, strict=True)]
        return [tree.run(self._embedding, self._tokens_after(head)) for tree in trees]

    def _drafting(
        self, drafter: FittedDrafter, pairs: Seq[tuple[SequenceState, FittedColumn]]
    ) -> list[ReferenceSequence]:
        """The sequences. Raises RowError where two share a column, ConfigurationError."""
        if not self._made_here(drafter):
            raise foreign(drafter)
        if any(one is other for (_, one), (_, other) in combinations(pairs, 2)):
            raise RowError("a drafter's column appears twice in one call: give each sequence one of its own")
        return [sequence for sequence, _ in self._named([(sequence, ()) for sequence, _ in pairs])]

    def _made_here(self, drafter: object) -> bool:
        """Whether drafter() gave it."""
        return type(drafter) is ReferenceDrafter

    def _tokens_after(
        self, head: DraftHead | None
    ) -> Callable[[Tensor, Seq[int], Sampling, int], list[tuple[int, float]]]:
        """What gives the best tokens after a text from a state, and their shares."""

        def branch(state: Tensor, text: Seq[int], sampling: Sampling, most: int) -> list[tuple[int, float]]:
            logits = self._logits(state[None], head)
            scores = penalised(logits[0], text, sampling.repetition_penalty)
            tokens, ranks = best(scores, sampling, len(text), most)
            shares = confidences(np.repeat(logits, len(tokens), axis=0), tokens)
            if sampling.temperature > 0 or sampling.repetition_penalty != 1.0:
                parts = np.exp(ranks - ranks[0])
                together = shares.astype(np.float64).sum()
                shares = np.minimum(1.0, together * parts / parts.sum()).astype(np.float32)
            return list(zip(tokens.tolist(), shares.tolist(), strict=True))

        return branch

    def _token_after(self, head: DraftHead | None) -> DrawAfter:
        """What draws the token after a text from a state, and its confidence."""

        def draw(
            state: Tensor, count: int, text: Callable[[], Seq[int]], sampling: Sampling
        ) -> tuple[int, float]:
            tokens, shares = self._choose(state[None], [Draw(sampling, count, text)], head, shares=True)
            return int(tokens[0]), float(shares[0])

        return draw

    @torch.no_grad()
    def rank(
        self, drafter: FittedDrafter, calls: Seq[RankCall], k: int, head: DraftHead | None = None
    ) -> list[list[int]]:
        """The k likeliest tokens after each row by the block. Raises RowError, ConfigurationError."""
        named = self._drafting(drafter, [(call.sequence, call.column) for call in calls])
        self._check_likely(k, head)
        pairs = [checked_block(drafter, call.column, self.config) for call in calls]
        found = []
        for sequence, (block, column), call in zip(named, pairs, calls, strict=True):
            state = behind_row(block, column, sequence, call.slot, self._embedding)
            column.cut(column.length)
            logits = self._logits(state[None], head)[0]
            found.append(np.argsort(-logits, kind="stable")[:k].tolist())
        return found

    def _check_likely(self, k: int, head: DraftHead | None) -> None:
        tokens = self._head_tokens(head)
        if not 1 <= k <= tokens:
            raise RowError(f"the {k} likeliest tokens: allowed are 1..{tokens}, as many as the head has")

    def exit_predictors(self, parts: ExitParts) -> ReferenceExits:
        """Predictors of early exits. Raises ConfigurationError."""
        return ReferenceExits(parts, self.config)

    def leave_early(
        self,
        drafter: FittedDrafter,
        predictors: FittedExits,
        calls: Seq[ExitCall],
        head: DraftHead | None = None,
        *,
        confirm: bool,
    ) -> Exits:
        """Rows through layers until predictors let them go, side by side."""
        known = self._own_exits(predictors)
        self._named([(call.sequence, (call.slot,)) for call in calls])
        for call in calls:
            known.check(call.layers)
        checked = [call for call in calls if call.layers]
        ranks = [RankCall(call.sequence, call.column, call.slot) for call in checked]
        begin = time.perf_counter()
        ranked = iter(self.rank(drafter, ranks, known.candidates, head))
        seconds = time.perf_counter() - begin
        candidates = [next(ranked) if call.layers else [] for call in calls]
        whole = self._whole_exits(known, calls, candidates) if confirm else None
        if whole is not None:
            return whole._replace(draft=seconds)
        rows, begin = [ExitRow(own) for own in candidates], time.perf_counter()
        left, in_head = leave(self, calls, rows, known, confirm=confirm)
        return Exits(left, seconds, time.perf_counter() - begin - in_head, in_head)

    def _whole_exits(
        self, predictors: ReferenceExits, calls: Seq[ExitCall], candidates: Seq[Seq[int]]
    ) -> Exits | None:
        """Confirmed exits in one piece, None where there is no such way."""
        return None

    def chances(self, predictors: ReferenceExits, layer: int, work: Work, rows: Seq[ExitRow]) -> list[float]:
        """What a layer's predictor says of rows by the states where they are; ``rows`` see their logits."""
        logits = self.candidate_logits(work, [row.candidates for row in rows])
        return [predictors.chance(layer, row.features(own)) for row, own in zip(rows, logits, strict=True)]

    def exit_rows(self, predictors: FittedExits, candidates: Seq[Seq[int]]) -> ReferenceExitRows:
        """Rows to ask predictors about. Raises RowError, ConfigurationError."""
        return ReferenceExitRows(self._own_exits(predictors), candidates)

    def ask_exits(self, rows: ExitRows, layer: int, calls: Seq[AskCall]) -> list[Answer]:
        """Ask a layer's predictor about rows, one after the other. Raises RowError, ConfigurationError."""
        return ask(self, rows, layer, calls)

    def _own_exits(self, predictors: FittedExits) -> ReferenceExits:
        if isinstance(predictors, ReferenceExits) and predictors.config is self.config:
            return predictors
        raise ConfigurationError(
            f"{type(predictors).__name__} of another backend or model: make predictors with this backend's "
            "exit_predictors()"
        )
