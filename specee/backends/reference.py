"""The reference backend: torch eager, one row at a time, any device.

Slow and plain on purpose. It interprets the same verbs as the native backends and is what they are
checked against; every row is computed by itself, so batch invariance needs no further care.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import replace
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from specee.backends.drafter_parts import stored_rows
from specee.backends.protocol import (
    Answer,
    AskCall,
    ChainCall,
    DraftedTree,
    DraftFormat,
    DraftHead,
    ExitCall,
    ExitRows,
    Exits,
    FittedColumn,
    FittedDrafter,
    FittedExits,
    Floats,
    Ints,
    RankCall,
    SequenceState,
    TreeCall,
    Work,
)
from specee.backends.reference_ask import ReferenceExitRows, ask
from specee.backends.reference_chain import ReferenceChain
from specee.backends.reference_draft import ReferenceDraftHead, make_draft_head
from specee.backends.reference_drafter import ReferenceDrafter
from specee.backends.reference_exits import (
    ExitRow,
    ReferenceExits,
    behind_row,
    checked_block,
    checked_candidates,
    leave,
)
from specee.backends.reference_layer import ReferenceLayer
from specee.backends.reference_math import (
    Matrix,
    attend,
    inverse_frequencies,
    linear,
    rms_norm,
)
from specee.backends.reference_sequence import ReferenceSequence, Row
from specee.backends.reference_tree import ReferenceTree
from specee.backends.reference_weights import ReferenceWeights
from specee.errors import CapacityError, ConfigurationError, NumericalError, RowError
from specee.models.blocks import row_bytes, widen
from specee.models.drafter_parts import DrafterParts
from specee.models.exit_parts import ExitParts
from specee.models.formats import made_formats
from specee.models.speculator import Adapter
from specee.models.table import Key, Slab
from specee.sampling import best, penalised, sample
from specee.types import DEFAULT_KV, KVDtype, ModelConfig, Sampling, WeightFormat

Named = list[tuple[ReferenceSequence, list[Row]]]


class ReferenceBackend:
    """See :class:`specee.backends.protocol.Backend`, which documents every verb.

    Every product is computed in fp32 with the values its matrix holds. What its input is rounded to, once,
    depends on what the matrix is stored in: see :func:`.reference_math.product_input`. Residual stream,
    norms, rotation and softmax stay fp32. Keys and values are rounded to ``kv_dtype`` before any row
    reads them. ``formats`` may be left out where ``weights`` alone says it (all but ``packed``).
    """

    name = "reference"

    def __init__(
        self,
        config: ModelConfig,
        slabs: Iterable[Slab],
        weights: WeightFormat,
        formats: Mapping[Key, str] | None = None,
        *,
        device: str = "cpu",
    ) -> None:
        self.config = config
        self.weights = weights
        self._device = torch.device(device)
        stored = formats if formats is not None else made_formats(config, weights)
        self._table = ReferenceWeights(config, slabs, stored, self._device)
        self._speeds = inverse_frequencies(config.rope, config.head_dim).to(self._device)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights that a decoding step reads."""
        return self._table.weight_bytes

    def sequence(
        self, capacity: int, kv_dtype: KVDtype | None = None, *, poison: bool = False
    ) -> ReferenceSequence:
        """Reserve a sequence. Raises CapacityError, OutOfMemoryError, ConfigurationError."""
        kv_dtype = kv_dtype or DEFAULT_KV[self.weights]
        if kv_dtype not in ("fp32", "bf16", "fp16"):
            raise ConfigurationError(f"kv_dtype {kv_dtype!r}: allowed are 'fp32', 'bf16', 'fp16'")
        if not 1 <= capacity <= self.config.max_position:
            raise CapacityError(
                f"a sequence of {capacity} positions: allowed are 1..{self.config.max_position}, the context"
            )
        return ReferenceSequence(self.config, capacity, kv_dtype, poison=poison, device=self._device)

    @torch.no_grad()
    def advance(self, work: Work, to_layer: int) -> None:
        """Bring rows, and what they attend to, to ``to_layer`` layers done. Raises RowError."""
        if not 1 <= to_layer <= self.config.num_layers:
            raise RowError(f"to_layer {to_layer}: allowed are 1..{self.config.num_layers}")
        named = self._named(work)
        for sequence, rows in named:
            sequence.name(rows)
        needed = [(sequence, _with_ancestors(rows, to_layer)) for sequence, rows in named]
        for layer in range(to_layer):
            for sequence, rows in needed:
                self._layer(sequence, [row for row in rows if row.done == layer], layer)
        for sequence, rows in named:
            sequence.name(rows)

    def _named(self, work: Work) -> Named:
        """The row objects of ``work``, after every check and before any change."""
        named: Named = []
        for sequence, slots in work:
            if not isinstance(sequence, ReferenceSequence) or sequence.config is not self.config:
                raise RowError(f"{type(sequence).__name__} does not belong to this {self.name} backend")
            if any(sequence is other for other, _ in named):
                raise RowError("a sequence appears twice in one call: merge its slots into one entry")
            if len(set(slots)) != len(slots):
                raise RowError(f"slots {list(slots)} are not distinct: name each row once")
            named.append((sequence, [sequence.find(slot) for slot in slots]))
        return named

    def _layer(self, sequence: ReferenceSequence, rows: list[Row], layer: int) -> None:
        """Run ``rows``, parents first, through ``layer``."""
        if not rows:
            return
        block = ReferenceLayer(self.config, self._table, layer)
        for row in rows:
            x = self._table.embedding(row.token) if row.hidden is None else row.hidden
            query, key, value = block.project(x, row.position, self._speeds)
            sequence.keys[layer, row.slot] = key.to(sequence.keys.dtype)
            sequence.values[layer, row.slot] = value.to(sequence.values.dtype)
            slots = [ancestor.slot for ancestor in row.path()]
            window = self.config.windows[layer]
            slots = slots[-window:] if window else slots
            keys, values = sequence.keys[layer, slots].float(), sequence.values[layer, slots].float()
            if layer == 0:
                sequence.begin(row)
            row.pass_layer(block.finish(x, attend(query, keys, values)), sequence.layers_kept)

    def hidden(self, work: Work) -> Floats:
        """Hidden states: (rows, hidden_size) fp32. Raises RowError."""
        states = [sequence.hidden(row.slot) for sequence, rows in self._named(work) for row in rows]
        return np.array([state.cpu().numpy() for state in states], np.float32).reshape(
            len(states), self.config.hidden_size
        )

    def logits(self, work: Work, head: DraftHead | None = None) -> Floats:
        """Final norm and head: (rows, vocab_size) fp32. Raises RowError, ConfigurationError."""
        return self._logits(self.hidden(work), head)

    @torch.no_grad()
    def _logits(self, states: Floats, head: DraftHead | None) -> Floats:
        norm, whole = self._table.get("final_norm"), self._table.matrix(*self._table.head)
        own = self._own_head(head)
        rows = []
        for state in torch.from_numpy(states).to(self._device):
            x = state if own is None else own.adapt(state)
            if own is not None and not torch.isfinite(x).all():
                raise NumericalError(
                    "a row is infinite or not a number behind the adapter of a draft head: check the "
                    "speculator file, or draft without it"
                )
            matrix = whole if own is None else own.matrix
            if own is None or not own.normed:
                x = rms_norm(x, norm, self.config.norm_eps)
            row = linear(x, matrix, None)
            rows.append(row if own is None else own.keep(row))
        return np.array([row.cpu().numpy() for row in rows], np.float32).reshape(
            len(rows), self.config.vocab_size
        )

    def _own_head(self, head: DraftHead | None) -> ReferenceDraftHead | None:
        if head is None or (isinstance(head, ReferenceDraftHead) and head.config is self.config):
            return head
        raise ConfigurationError(
            f"a {type(head).__name__} of another backend or model: make draft heads with this backend's "
            "draft_head()"
        )

    def argmax(self, work: Work) -> Ints:
        """Greedy tokens, lowest id among equals: (rows,)."""
        best: Ints = np.argmax(self.logits(work), axis=1).astype(np.int64)
        return best

    def topk(self, work: Work, k: int) -> tuple[Ints, Floats]:
        """Ids and logits of the k best, lower id first among equals: (rows, k) each."""
        if not 1 <= k <= self.config.vocab_size:
            raise RowError(f"k {k}: allowed are 1..{self.config.vocab_size}")
        logits = self.logits(work)
        ids = np.argsort(-logits, axis=1, kind="stable")[:, :k].astype(np.int64)
        return ids, np.take_along_axis(logits, ids, axis=1)

    def sample(self, work: Work, sampling: Seq[Sampling]) -> Ints:
        """The token after each row, with noise at its position + 1: (rows,)."""
        return self._draw(work, sampling, self.logits(work))

    def _draw(self, work: Work, sampling: Seq[Sampling], logits: Floats) -> Ints:
        named = [row for _, rows in self._named(work) for row in rows]
        if len(sampling) != len(named):
            raise RowError(f"{len(sampling)} samplings for {len(named)} rows: give one a row")
        return np.array(list(map(_drawn, logits, sampling, named)), np.int64)

    def verify(self, work: Work, sampling: Seq[Sampling] | None) -> tuple[list[int], float, float]:
        """All layers, then the token after each row: (rows,), and the seconds of both."""
        begin = time.perf_counter()
        self.advance(work, self.config.num_layers)
        middle = time.perf_counter()
        drawn = self.argmax(work) if sampling is None else self.sample(work, sampling)
        return drawn.tolist(), middle - begin, time.perf_counter() - middle

    def draft(
        self, work: Work, sampling: Seq[Sampling], head: DraftHead | None = None
    ) -> tuple[Ints, Floats]:
        """The token drawn after each row, and its probability in the softmax: (rows,) each."""
        logits = self.logits(work, head)
        tokens = self._draw(work, sampling, logits)
        return tokens, _confidences(logits, tokens)

    def shadow(self, work: Work, layers: Seq[int], head: DraftHead | None = None) -> tuple[Ints, Floats]:
        """The best token by each kept state, and its probability: (rows, layers). Raises RowError."""
        states = [
            sequence.kept_state(row.slot, layer).cpu().numpy()
            for sequence, rows in self._named(work)
            for row in rows
            for layer in layers
        ]
        stacked = np.array(states, np.float32).reshape(len(states), self.config.hidden_size)
        logits = self._logits(stacked, head)
        shape = (sum(len(slots) for _, slots in work), len(layers))
        tokens: Ints = np.argmax(logits, axis=1).astype(np.int64)
        return tokens.reshape(shape), _confidences(logits, tokens).reshape(shape)

    def draft_head(
        self,
        adapter: Adapter | None,
        vocabulary: Ints | None,
        stored: DraftFormat | None = None,
        *,
        normed: bool = False,
    ) -> ReferenceDraftHead:
        """A head for drafts. Raises ConfigurationError."""
        own = self._table.matrix(*self._table.head)
        bytes_of_row = self._table.row_bytes(self._table.head)
        if stored is not None:
            rows = stored_rows(own.values.cpu().numpy(), stored)
            bytes_of_row = row_bytes(stored, self.config.hidden_size)
            values = widen(rows, stored, self.config.hidden_size)
            own = Matrix(torch.tensor(values, device=self._device), stored)
        made = make_draft_head(self.config, adapter, vocabulary, own, bytes_of_row, self._device)
        return replace(made, normed=normed)

    def drafter(self, parts: DrafterParts, stored: DraftFormat = "Q8_0") -> ReferenceDrafter:
        """A drafter block. Raises ConfigurationError."""
        return ReferenceDrafter(self.config, parts, stored, self._device)

    @torch.no_grad()
    def draft_chains(
        self, drafter: FittedDrafter, calls: Seq[ChainCall], head: DraftHead | None = None
    ) -> list[tuple[list[int], list[float]]]:
        """A chain for each sequence, one after the other. Raises RowError, ConfigurationError."""
        named = self._drafting([(call.sequence, call.column) for call in calls])
        chains = [ReferenceChain(drafter, *pair, self.config) for pair in zip(named, calls, strict=True)]
        return [chain.run(self._table.embedding, self._token_after(head)) for chain in chains]

    @torch.no_grad()
    def draft_trees(
        self, drafter: FittedDrafter, calls: Seq[TreeCall], head: DraftHead | None = None
    ) -> list[DraftedTree]:
        """A tree for each sequence, one after the other. Raises RowError, ConfigurationError."""
        named = self._drafting([(call.sequence, call.column) for call in calls])
        for k in {call.likely for call in calls if call.likely}:
            self._check_likely(k, head)
        trees = [ReferenceTree(drafter, *pair, self.config) for pair in zip(named, calls, strict=True)]
        return [tree.run(self._table.embedding, self._tokens_after(head)) for tree in trees]

    def _drafting(self, pairs: Seq[tuple[SequenceState, FittedColumn]]) -> list[ReferenceSequence]:
        """The sequences. Raises RowError where two share a column."""
        if any(one is other for (_, one), (_, other) in combinations(pairs, 2)):
            raise RowError("a drafter's column appears twice in one call: give each sequence one of its own")
        return [sequence for sequence, _ in self._named([(sequence, ()) for sequence, _ in pairs])]

    def _tokens_after(
        self, head: DraftHead | None
    ) -> Callable[[Tensor, Seq[int], Sampling, int], list[tuple[int, float]]]:
        """What gives the best tokens after a text from a state, and their shares."""

        def branch(state: Tensor, text: Seq[int], sampling: Sampling, most: int) -> list[tuple[int, float]]:
            logits = self._logits(state.cpu().numpy()[None], head)
            scores = penalised(logits[0], text, sampling.repetition_penalty)
            tokens, ranks = best(scores, sampling, len(text), most)
            shares = _confidences(np.repeat(logits, len(tokens), axis=0), tokens)
            if sampling.temperature > 0 or sampling.repetition_penalty != 1.0:
                parts = np.exp(ranks - ranks[0])
                together = shares.astype(np.float64).sum()
                shares = np.minimum(1.0, together * parts / parts.sum()).astype(np.float32)
            return list(zip(tokens.tolist(), shares.tolist(), strict=True))

        return branch

    def _token_after(
        self, head: DraftHead | None
    ) -> Callable[[Tensor, Seq[int], Sampling], tuple[int, float]]:
        """What draws the token after a text from a state, and its confidence."""

        def draw(state: Tensor, text: Seq[int], sampling: Sampling) -> tuple[int, float]:
            logits = self._logits(state.cpu().numpy()[None], head)
            scores = penalised(logits[0], text, sampling.repetition_penalty)
            token = sample(scores, sampling, len(text))
            return token, float(_confidences(logits, np.array([token]))[0])

        return draw

    @torch.no_grad()
    def rank(
        self, drafter: FittedDrafter, calls: Seq[RankCall], k: int, head: DraftHead | None = None
    ) -> list[list[int]]:
        """The k likeliest tokens after each row by the block. Raises RowError, ConfigurationError."""
        named = self._drafting([(call.sequence, call.column) for call in calls])
        self._check_likely(k, head)
        pairs = [checked_block(drafter, call.column, self.config) for call in calls]
        found = []
        for sequence, (block, column), call in zip(named, pairs, calls, strict=True):
            state = behind_row(block, column, sequence, call.slot, self._table.embedding)
            column.cut(column.length)
            logits = self._logits(state.cpu().numpy()[None], head)[0]
            found.append(np.argsort(-logits, kind="stable")[:k].tolist())
        return found

    def _check_likely(self, k: int, head: DraftHead | None) -> None:
        own = self._own_head(head)
        tokens = self.config.vocab_size if own is None or own.ids is None else len(own.ids)
        if not 1 <= k <= tokens:
            raise RowError(f"the {k} likeliest tokens: allowed are 1..{tokens}, as many as the head has")

    def score(self, work: Work, layers: Seq[int], candidates: Ints) -> Floats:
        """Logits of a few candidates by each kept state: (rows, layers, k). Raises RowError."""
        rows = [(sequence, row) for sequence, own in self._named(work) for row in own]
        ids = checked_candidates(candidates, len(rows), self.config)
        states = [
            sequence.kept_state(row.slot, layer).cpu().numpy() for sequence, row in rows for layer in layers
        ]
        stacked = np.array(states, np.float32).reshape(len(states), self.config.hidden_size)
        logits = self._logits(stacked, None).reshape(len(rows), len(layers), self.config.vocab_size)
        return np.take_along_axis(logits, ids[:, None, :], axis=2)

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
        """Rows through layers until predictors let them go, one after the other."""
        known = self._own_exits(predictors)
        self._named([(call.sequence, (call.slot,)) for call in calls])
        for call in calls:
            known.check(call.layers)
        checked = [call for call in calls if call.layers]
        ranks = [RankCall(call.sequence, call.column, call.slot) for call in checked]
        candidates = iter(self.rank(drafter, ranks, known.candidates, head))
        rows = [ExitRow(next(candidates) if call.layers else []) for call in calls]
        pairs = zip(calls, rows, strict=True)
        return Exits([leave(self, *pair, known, confirm=confirm) for pair in pairs], 0.0, 0.0, 0.0)

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


def _confidences(logits: Floats, tokens: Ints) -> Floats:
    """Probability of each row's token in the softmax of its logits: (rows,)."""
    exact = logits.astype(np.float64)
    weights = np.exp(exact - exact.max(axis=1, keepdims=True, initial=-np.inf))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    chosen: Floats = probabilities[np.arange(len(tokens)), tokens].astype(np.float32)
    return chosen


def _drawn(logits: Floats, sampling: Sampling, row: Row) -> int:
    """The token after ``row``, whose path the repetition penalty looks at."""
    if sampling.repetition_penalty != 1.0:
        logits = penalised(logits, [before.token for before in row.path()], sampling.repetition_penalty)
    return sample(logits, sampling, row.position + 1)


def _with_ancestors(rows: list[Row], to_layer: int) -> list[Row]:
    """``rows`` and all they attend to that are short of ``to_layer``, parents first."""
    needed = {row for last in rows for row in last.path() if row.done < to_layer}
    return sorted(needed, key=lambda row: row.position)
