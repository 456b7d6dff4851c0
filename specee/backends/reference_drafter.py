"""The drafter block of the reference backend: one row at a time, in the formula's own words."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from specee.backends.drafter_parts import checked_parts, stored_rows
from specee.backends.protocol import DraftFormat, Floats
from specee.backends.reference_math import (
    Matrix,
    attend,
    inverse_frequencies,
    linear,
    rms_norm,
    rotate,
    swiglu,
)
from specee.errors import CapacityError, ConfigurationError
from specee.models.blocks import row_bytes, widen
from specee.models.drafter_parts import DrafterParts
from specee.types import KVDtype, ModelConfig

_DTYPES: dict[KVDtype, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


@dataclass(eq=False)
class ReferenceColumn:
    """Keys, values and tokens of positions from ``first`` on, made from true states.

    An entry of ``memory`` is what a row leaves for those behind it: its key and value, (heads, dim) each.
    """

    drafter: ReferenceDrafter
    capacity: int
    dtype: torch.dtype
    first: int = 1
    tokens: list[int] = field(default_factory=list)
    memory: list[Any] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Positions that are there."""
        return len(self.tokens)

    def cut(self, length: int) -> None:
        """Forget all but the first ``length``."""
        del self.tokens[length:], self.memory[length:]


class ReferenceDrafter:
    """See :meth:`.Backend.drafter`."""

    def __init__(
        self, config: ModelConfig, parts: DrafterParts, stored: DraftFormat, device: torch.device
    ) -> None:
        checked = checked_parts(parts, config)
        self.config = config
        self.layers = checked.layers
        self._device = device
        self._speeds = inverse_frequencies(config.rope, config.head_dim).to(device)
        self._plain = checked.plain
        self._vectors: dict[str, Tensor] = {}
        self._matrices: dict[str, Any] = {}
        self.bytes = 0
        for name, array in checked.arrays():
            if name.endswith(("norm", "norms", "bias")):
                self._vectors[name] = torch.tensor(array, device=device)
            else:
                self._matrices[name] = self._matrix(name, array, stored)
                self.bytes += len(array) * row_bytes(stored, array.shape[1])

    def _matrix(self, name: str, array: Floats, stored: DraftFormat) -> Any:
        """As products take it: what its blocks are worth."""
        rows = widen(stored_rows(array, stored), stored, array.shape[1])
        return Matrix(torch.tensor(rows, device=self._device), stored)

    def column(self, capacity: int, kv_dtype: KVDtype, *, poison: bool = False) -> ReferenceColumn:
        """See :meth:`.FittedDrafter.column`. Lists have no slots that could be stale."""
        if not 1 <= capacity <= self.config.max_position:
            raise CapacityError(
                f"a column of {capacity} positions: allowed are 1..{self.config.max_position}, the context"
            )
        return ReferenceColumn(self, capacity, _DTYPES[kv_dtype])

    def behind_text(
        self,
        column: ReferenceColumn,
        position: int,
        tokens: Seq[int],
        states: Callable[[int], Seq[Tensor]],
        embed: Callable[[int], Tensor],
    ) -> Tensor:
        """What the block gives at the last of the positions from ``position`` on.

        Their ``tokens`` join the column's. ``states`` of the position before one, after each of the layers.
        """
        for at, token in enumerate(tokens, position):
            state = self.text_row(column, at, embed(token), states(at))
            column.tokens.append(token)
        return state

    def text_row(
        self, column: ReferenceColumn, position: int, embedding: Tensor, states: Seq[Tensor]
    ) -> Tensor:
        """:meth:`row` behind text: ``states`` of the position before, after each of the layers, in order."""
        return self.row(column, position, embedding, self._fused(states))

    def _fused(self, states: Seq[Tensor]) -> Tensor:
        pairs = zip(states, self._vectors["state_norms"], strict=True)
        normed = [rms_norm(state, norm, self.config.norm_eps) for state, norm in pairs]
        if self._plain:
            return normed[0]
        return linear(torch.cat(normed), self._matrices["fuse"], None)

    def row(self, column: ReferenceColumn, position: int, embedding: Tensor, before: Tensor) -> Tensor:
        """What the block gives at ``position``; its key and value join the column's, and its token does not.

        ``before`` are the fused states of the position before, or what the block gave there.
        """
        config, dim = self.config, self.config.head_dim
        both = torch.cat((self._norm("embed_norm", embedding), self._norm("fused_norm", before)))
        x = linear(both, self._matrices["fc"], self._vectors.get("fc_bias"))
        normed = self._norm("attn_norm", x)
        q, k, v = (linear(normed, self._matrices[name], None).view(-1, dim) for name in "qkv")
        at = position - column.first
        column.memory.append((rotate(k, at, self._speeds).to(column.dtype), v.to(column.dtype)))
        keys, values = (torch.stack(part).float() for part in zip(*column.memory, strict=True))
        x = x + linear(attend(rotate(q, at, self._speeds), keys, values), self._matrices["o"], None)
        normed = rms_norm(x, self._vectors["mlp_norm"], config.norm_eps)
        gate, up = (linear(normed, self._matrices[name], None) for name in ("gate", "up"))
        return x + linear(swiglu(gate, up), self._matrices["down"], None)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        if self._plain:
            return x
        return rms_norm(x, self._vectors[name], self.config.norm_eps)


def foreign(drafter: object) -> ConfigurationError:
    """What to raise for a block that a backend did not make."""
    return ConfigurationError(
        f"a {type(drafter).__name__} of another backend or model: make drafters with this backend's drafter()"
    )


def checked_block(
    drafter: object, column: object, config: ModelConfig
) -> tuple[ReferenceDrafter, ReferenceColumn]:
    """Both, if they are of this model. Raises ConfigurationError."""
    if not isinstance(drafter, ReferenceDrafter) or drafter.config is not config:
        raise foreign(drafter)
    if not isinstance(column, ReferenceColumn) or column.drafter is not drafter:
        raise ConfigurationError("a column of another drafter: make columns with this one's column()")
    return drafter, column
