"""The reference backend: torch eager, one row at a time, any device.

Slow and plain on purpose. It interprets the same verbs as the native backends and is what they are
checked against; every row is computed by itself, so batch invariance needs no further care.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from specee.backends.drafter_parts import stored_rows
from specee.backends.drafter_verbs import DrafterVerbs
from specee.backends.head_verbs import kept_tokens, on_host, own_head
from specee.backends.protocol import DraftFormat, DraftHead, Floats, Ints, Work
from specee.backends.reference_draft import ReferenceDraftHead, make_draft_head
from specee.backends.reference_drafter import ReferenceDrafter
from specee.backends.reference_layer import ReferenceLayer
from specee.backends.reference_math import (
    Matrix,
    attend,
    inverse_frequencies,
    linear,
    rms_norm,
)
from specee.backends.reference_sequence import ReferenceSequence, Row, with_ancestors
from specee.backends.reference_weights import ReferenceWeights
from specee.errors import CapacityError, ConfigurationError, NumericalError, RowError
from specee.models.blocks import row_bytes, widen
from specee.models.drafter_parts import DrafterParts
from specee.models.formats import made_formats
from specee.models.speculator import Adapter
from specee.models.table import Key, Slab
from specee.types import DEFAULT_KV, KVDtype, ModelConfig, WeightFormat


class ReferenceBackend(DrafterVerbs):
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
        return ReferenceSequence(
            self.config, capacity, kv_dtype, poison=poison, device=self._device, owner=self
        )

    @torch.no_grad()
    def advance(self, work: Work, to_layer: int) -> None:
        """Bring rows, and what they attend to, to ``to_layer`` layers done. Raises RowError."""
        if not 1 <= to_layer <= self.config.num_layers:
            raise RowError(f"to_layer {to_layer}: allowed are 1..{self.config.num_layers}")
        named = self._named(work)
        for sequence, rows in named:
            sequence.name(rows)
        needed = [(sequence, with_ancestors(rows, to_layer)) for sequence, rows in named]
        for layer in range(to_layer):
            for sequence, rows in needed:
                self._layer(sequence, [row for row in rows if row.done == layer], layer)
        for sequence, rows in named:
            sequence.name(rows)

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

    def _embedding(self, token: int) -> Tensor:
        return self._table.embedding(token)

    @torch.no_grad()
    def _logits(self, states: Tensor, head: DraftHead | None) -> Floats:
        norm, whole = self._table.get("final_norm"), self._table.matrix(*self._table.head)
        own = self._own_head(head)
        rows = []
        for state in states:
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
        return np.array([on_host(row) for row in rows], np.float32).reshape(len(rows), self.config.vocab_size)

    def _own_head(self, head: DraftHead | None) -> ReferenceDraftHead | None:
        return own_head(ReferenceDraftHead, head, self.config)

    def _head_tokens(self, head: DraftHead | None) -> int:
        return kept_tokens(self._own_head(head), self.config)

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
