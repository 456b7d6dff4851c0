"""Draft heads on a device: some rows of the model's head, and an adapter before them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_repeats import Graphs, Repeats
from specee.backends.cuda_weights import Matrix, on_device, on_host, packed_blocks
from specee.backends.cuda_workspace import Workspace, cut_inputs
from specee.backends.draft_parts import checked_adapter, checked_vocabulary
from specee.backends.drafter_parts import stored_rows
from specee.backends.protocol import DraftFormat, Floats, Ints
from specee.cuda.launcher import Launcher
from specee.cuda.packing import PackedWeights, pack_int8, unpack_int8
from specee.cuda.products import Inputs, multiply, norm_rows, prepare_rows, swiglu_rows
from specee.cuda.rows import copy_rows
from specee.cuda.spread import spread_logits
from specee.cuda.tiles import MAX_LINEAR_ROWS, TILE_UNIT
from specee.errors import NumericalError
from specee.models.blocks import row_bytes
from specee.models.speculator import Adapter
from specee.types import ModelConfig


@dataclass(frozen=True)
class _Adapter:
    """``h + up silu(down rms_norm(h))``, products in bf16; the rank is filled up with zeros."""

    norm: Tensor
    down: Tensor
    up: Tensor
    normed: Inputs
    inner: Tensor
    gated: Inputs
    x: Tensor

    def adapt(self, launcher: Launcher, states: Tensor, eps: float) -> Tensor:
        """What the final norm takes for ``states`` (rows, hidden). Raises NumericalError."""
        count = len(states)
        normed, gated = cut_inputs(self.normed, 0, count), cut_inputs(self.gated, 0, count)
        inner, x = self.inner[:count], self.x[:count]
        norm_rows(launcher, states, self.norm, normed, eps=eps)
        multiply(launcher, normed, self.down, inner)
        swiglu_rows(launcher, inner, None, gated)
        copy_rows(launcher, states, x)
        multiply(launcher, gated, self.up, x, add=True)
        if not bool(torch.isfinite(x).all()):
            raise NumericalError(
                "a row is infinite or not a number behind the adapter of a draft head: check the "
                "speculator file, or draft without it"
            )
        return x


@dataclass(frozen=True)
class HeadProduct:
    """What a draft head launches behind its adapter, if it has one.

    ``places`` (vocab,) int32: where each token's row of ``matrix`` is, below 0 for nowhere; None for all in
    order. ``inputs``: room for rows as the product takes them, ``kept`` for what it gives of some tokens.
    ``eps`` is the final norm's, None where states are normed already.
    """

    matrix: Matrix
    places: Tensor | None
    inputs: Inputs
    kept: Tensor
    eps: float | None

    def launch(self, launcher: Launcher, x: Tensor, norm: Tensor, out: Tensor) -> None:
        """Logits of at most 64 states ``x`` (rows, hidden) into ``out`` (rows, vocab)."""
        count = len(x)
        inputs, kept = cut_inputs(self.inputs, 0, count), out if self.places is None else self.kept[:count]
        if self.eps is None:
            prepare_rows(launcher, x, inputs)
        else:
            norm_rows(launcher, x, norm, inputs, eps=self.eps)
        multiply(launcher, inputs, self.matrix, kept)
        if self.places is not None:
            spread_logits(launcher, kept, self.places, out)


@dataclass(frozen=True, eq=False)
class CudaDraftHead:
    """See :meth:`.Backend.draft_head`. ``ids``: kept tokens, ascending, None for all, on the host.

    ``launcher`` and ``repeats`` are the backend's.
    """

    config: ModelConfig
    ids: Tensor | None
    product: HeadProduct
    adapter: _Adapter | None
    bytes: int
    launcher: Launcher
    repeats: Repeats

    def logits(self, states: Tensor, norm: Tensor, out: Tensor) -> None:
        """Of at most 64 states (rows, hidden) into ``out`` (rows, vocab): the same arrays each time.

        What is not kept has minus infinity. Raises NumericalError.
        """
        x, adapter = states, self.adapter
        if adapter is not None:
            x = adapter.adapt(self.launcher, states, self.config.norm_eps)
        self.repeats.run(len(states), lambda launcher: self.product.launch(launcher, x, norm, out))


class DraftHeadMaker:
    """Makes draft heads of one model's head."""

    def __init__(
        self,
        config: ModelConfig,
        head: Matrix,
        workspace: Workspace,
        launcher: Launcher,
        device: torch.device,
        graphs: Graphs,
    ) -> None:
        self._config, self._head, self._workspace, self._device = config, head, workspace, device
        self._launcher, self._graphs = launcher, graphs

    def make(
        self,
        adapter: Adapter | None,
        vocabulary: Ints | None,
        stored: DraftFormat | None,
        *,
        normed: bool,
    ) -> CudaDraftHead:
        """Check the parts and put them on the device. Raises ConfigurationError."""
        config = self._config
        ids = None if vocabulary is None else checked_vocabulary(vocabulary, config)
        parts = None if adapter is None else self._adapter(checked_adapter(adapter, config))
        matrix = self._rows(ids, stored)
        count = config.vocab_size if ids is None else len(ids)
        form = stored or ("BF16" if isinstance(self._head, Tensor) else "Q8_0")
        size = count * (2 * config.hidden_size if form == "BF16" else row_bytes(form, config.hidden_size))
        if parts is not None:
            assert adapter is not None
            size += 4 * parts.norm.numel() + 2 * (adapter.down.size + adapter.up.size)
        product = HeadProduct(
            matrix,
            None if ids is None else self._places(ids),
            self._workspace.inputs(config.hidden_size, quantised=form != "BF16"),
            self._floats(0 if ids is None else count),
            None if normed else config.norm_eps,
        )
        own = None if ids is None else torch.from_numpy(ids)
        repeats = Repeats(self._launcher, self._graphs)
        return CudaDraftHead(config, own, product, parts, size, self._launcher, repeats)

    def _places(self, ids: Ints) -> Tensor:
        """Where each token's row is, -1 for those without one."""
        places = torch.full((self._config.vocab_size,), -1, dtype=torch.int32)
        places[torch.from_numpy(ids)] = torch.arange(len(ids), dtype=torch.int32)
        return places.to(self._device)

    def _rows(self, ids: Ints | None, stored: DraftFormat | None) -> Matrix:
        """The rows of the head that are kept, as they are or quantised."""
        head = self._head
        if stored is not None:
            values = head_values(head)
            return on_device(
                packed_blocks(stored_rows(values if ids is None else values[ids], stored), stored),
                self._device,
            )
        if ids is None:
            return head
        if isinstance(head, Tensor):
            return head[torch.from_numpy(ids).to(head.device)].contiguous()
        q, scales = unpack_int8(on_host(head))
        return on_device(pack_int8(q[ids], scales[ids]), self._device)

    def _adapter(self, adapter: Adapter) -> _Adapter:
        rank, hidden = adapter.down.shape
        padded = -(-rank // TILE_UNIT) * TILE_UNIT
        down, up = np.zeros((padded, hidden), np.float32), np.zeros((hidden, padded), np.float32)
        down[:rank], up[:, :rank] = adapter.down, adapter.up
        return _Adapter(
            torch.tensor(adapter.norm, device=self._device),
            torch.from_numpy(down).to(self._device, torch.bfloat16),
            torch.from_numpy(up).to(self._device, torch.bfloat16),
            self._workspace.inputs(hidden, quantised=False),
            self._floats(padded),
            self._workspace.inputs(padded, quantised=False),
            self._floats(hidden),
        )

    def _floats(self, width: int) -> Tensor:
        return torch.empty(MAX_LINEAR_ROWS, width, device=self._device)


def head_values(head: Matrix) -> Floats:
    """What the rows of a head are worth, on the host: (vocab, hidden) fp32."""
    if not isinstance(head, PackedWeights):
        values: Floats = head.float().cpu().numpy()
        return values
    q, scales = unpack_int8(on_host(head))
    return np.repeat(scales.astype(np.float32), TILE_UNIT, axis=1) * q
