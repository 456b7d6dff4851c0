"""Rows, frontier and KV cache of one sequence, kept the obvious way: Python objects and one tensor.

The rules are those of :class:`specee.backends.protocol.SequenceState`, which documents every verb.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from specee.backends.protocol import Floats
from specee.errors import CapacityError, OutOfMemoryError, RowError
from specee.types import KVDtype, ModelConfig, RowInfo

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(eq=False)
class Row:
    """One token at one position. Identity matters: a row keeps its object when its slot moves."""

    token: int
    slot: int
    position: int
    parent: Row | None
    done: int = 0
    hidden: Tensor | None = None
    keeping: bool = False
    kept: dict[int, Tensor] = field(default_factory=dict)

    def pass_layer(self, hidden: Tensor, layers: Seq[int]) -> None:
        """One more layer is done; ``hidden`` is kept after one of ``layers`` if this row keeps its states."""
        self.hidden = hidden
        self.done += 1
        if self.keeping and self.done in layers:
            self.kept[self.done] = hidden

    def forget(self) -> None:
        """Keep no states, now and later."""
        self.keeping = False
        self.kept = {}

    def path(self) -> list[Row]:
        """Rows from position 0 to this one."""
        rows: list[Row] = []
        row: Row | None = self
        while row is not None:
            rows.append(row)
            row = row.parent
        return rows[::-1]

    def text(self) -> list[int]:
        """Tokens from position 0 up to this row."""
        return [row.token for row in self.path()]


def with_ancestors(rows: Iterable[Row], to_layer: int) -> list[Row]:
    """``rows`` and all they attend to that are short of ``to_layer``, parents first.

    From a row to its parent the number of layers done never falls: behind one that is there, all are.
    """
    needed: set[Row] = set()
    for last in rows:
        row: Row | None = last
        while row is not None and row.done < to_layer and row not in needed:
            needed.add(row)
            row = row.parent
    return sorted(needed, key=lambda row: row.position)


class ReferenceSequence:
    """See the protocol. ``keys`` and ``values`` are (layers, capacity, kv_heads, head_dim).

    ``owner`` is the backend that made it; no other takes it.
    """

    def __init__(
        self,
        config: ModelConfig,
        capacity: int,
        kv_dtype: KVDtype,
        *,
        poison: bool,
        device: torch.device,
        owner: object,
    ) -> None:
        self.config, self.owner = config, owner
        self._capacity = capacity
        self._poison = poison
        self._committed: list[Row] = []
        self._live: dict[int, Row] = {}
        self._named: set[Row] = set()
        self._begun: set[Row] = set()  # rows that may hold states
        self._let_go = 0  # positions from the first on whose kept states are let go
        self.layers_kept: tuple[int, ...] = ()
        self._positions_kept = 0
        shape = (config.num_layers, capacity, config.num_kv_heads, config.head_dim)
        fill = float("nan") if poison else 0.0
        try:
            self.keys = torch.full(shape, fill, dtype=_DTYPES[kv_dtype], device=device)
            self.values = torch.full(shape, fill, dtype=_DTYPES[kv_dtype], device=device)
        except RuntimeError as error:
            raise OutOfMemoryError(
                f"a {kv_dtype} KV cache of {capacity} positions does not fit in memory ({error}); "
                "ask for a shorter context or a smaller kv_dtype"
            ) from error

    @property
    def length(self) -> int:
        """Committed positions."""
        return len(self._committed)

    @property
    def capacity(self) -> int:
        """Slots reserved."""
        return self._capacity

    @property
    def frontier(self) -> tuple[int, ...]:
        """Committed positions done, per layer."""
        # From a position to the next the number of layers done never grows.
        return tuple(
            bisect_left(self._committed, -layer, key=lambda row: -row.done)
            for layer in range(self.config.num_layers)
        )

    @property
    def _complete(self) -> int:
        """The last number of :attr:`frontier`."""
        return bisect_left(self._committed, 1 - self.config.num_layers, key=lambda row: -row.done)

    @property
    def speculative(self) -> tuple[int, ...]:
        """Slots of the live speculative rows, parents before children."""
        return tuple(self._live)

    def find(self, slot: int) -> Row:
        """The row object in ``slot``. Raises RowError if there is none."""
        slot = int(slot)
        if 0 <= slot < self.length:
            return self._committed[slot]
        if slot in self._live:
            return self._live[slot]
        raise RowError(
            f"slot {slot} holds no row: committed slots are 0..{self.length - 1}, "
            f"live speculative slots are {list(self._live)}"
        )

    def row(self, slot: int) -> RowInfo:
        """The row in ``slot``. Raises RowError if there is none."""
        row = self.find(slot)
        parent = -1 if row.parent is None else row.parent.slot
        return RowInfo(slot=row.slot, token=row.token, parent=parent, position=row.position, done=row.done)

    def tokens(self, begin: int, end: int) -> list[int]:
        """Those of committed positions ``begin`` to ``end``."""
        return [row.token for row in self._committed[begin:end]]

    def append(self, tokens: Seq[int]) -> range:
        """Add committed positions. Raises RowError, CapacityError."""
        tokens = self._checked(tokens)
        if self._live:
            raise RowError(
                f"append while speculative rows {list(self._live)} are live: commit or prune them first"
            )
        begin = self.length
        for token in tokens:
            parent = self._committed[-1] if self._committed else None
            self._committed.append(Row(token, self.length, self.length, parent))
        return range(begin, self.length)

    def branch(self, tokens: Seq[int], parents: Seq[int] | None = None, root: int | None = None) -> list[int]:
        """Add speculative rows. Raises RowError, CapacityError."""
        tokens = self._checked(tokens)
        parents = list(range(-1, len(tokens) - 1)) if parents is None else [int(p) for p in parents]
        if len(parents) != len(tokens):
            raise RowError(f"{len(parents)} parents for {len(tokens)} tokens: give one parent a token")
        wrong = [(i, p) for i, p in enumerate(parents) if not -1 <= p < i]
        if wrong:
            raise RowError(f"parent {wrong[0][1]} of row {wrong[0][0]}: allowed are -1 .. {wrong[0][0] - 1}")
        top = self._root(root)
        fresh: list[Row] = []
        free = (slot for slot in range(self.length, self._capacity) if slot not in self._live)
        for token, index, slot in zip(tokens, parents, list(free), strict=False):
            parent = fresh[index] if index >= 0 else top
            fresh.append(Row(token, slot, 0 if parent is None else parent.position + 1, parent))
        self._live |= {row.slot: row for row in fresh}
        return [row.slot for row in fresh]

    def _root(self, root: int | None) -> Row | None:
        if root is None:
            return self._committed[-1] if self._committed else None
        row = self.find(root)
        if row.slot < self.length - 1:
            raise RowError(
                f"root {root} is a committed position before the last: allowed are {self.length - 1} "
                f"and the live speculative slots {list(self._live)}"
            )
        return row

    def _checked(self, tokens: Seq[int]) -> list[int]:
        checked = [int(token) for token in tokens]
        wrong = [token for token in checked if not 0 <= token < self.config.vocab_size]
        if wrong:
            raise RowError(f"token {wrong[0]} is outside the vocabulary 0..{self.config.vocab_size - 1}")
        room = self._capacity - self.length - len(self._live)
        if len(checked) > room:
            raise CapacityError(
                f"{len(checked)} rows do not fit: {room} of {self._capacity} slots are free; "
                "reserve a longer sequence, or prune or roll back first"
            )
        return checked

    def prune(self, rows: Seq[int]) -> None:
        """Drop speculative rows and their descendants. Raises RowError."""
        doomed = {self._speculative_row(slot) for slot in rows}
        for row in self._live.values():
            if row.parent in doomed:
                doomed.add(row)
        self._live = {slot: row for slot, row in self._live.items() if row not in doomed}
        self._clean()

    def _speculative_row(self, slot: int) -> Row:
        row = self._live.get(int(slot))
        if row is None:
            raise RowError(f"slot {slot} is not a live speculative row; those are {list(self._live)}")
        return row

    def commit(self, path: Seq[int]) -> None:
        """Make a path of speculative rows committed and drop the rest. Raises RowError."""
        rows = [self._speculative_row(slot) for slot in path]
        above = self._committed[-1] if self._committed else None
        for row in rows:
            if row.parent is not above:
                raise RowError(
                    f"slot {row.slot} in path {list(path)} is not a child of "
                    f"{'the start' if above is None else f'slot {above.slot}'}"
                )
            above = row
        source = [row.slot for row in rows]
        target = range(self.length, self.length + len(rows))
        if source != list(target):
            place = slice(target.start, target.stop)
            self.keys[:, place] = self.keys[:, source]
            self.values[:, place] = self.values[:, source]
        for row in rows:
            row.slot = self.length
            self._committed.append(row)
        self._live = {}
        self._clean()

    def rollback(self, n: int) -> None:
        """Drop the last ``n`` committed positions and all speculative rows. Raises RowError."""
        if not 0 <= n <= self.length:
            raise RowError(f"rollback of {n} positions: allowed are 0..{self.length}")
        del self._committed[self.length - n :]
        self._live = {}
        self._clean()

    def complete(self, drafts: Seq[int], states: Mapping[int, Tensor]) -> list[int]:
        """The newest position and ``drafts``, which are text behind it now, have been through all layers.

        Their keys and values are in the cache already, at the slots that they get, which are returned for
        ``drafts``. ``states`` (rows, hidden) of these rows after each layer whose states are kept.
        Raises RowError, CapacityError.
        """
        if missing := set(self.layers_kept) - states.keys():
            raise RowError(f"layers {sorted(missing)} are kept: give states of rows after them")
        slots = list(self.append(drafts))
        for at, row in enumerate(self._committed[self.length - len(drafts) - 1 :]):
            self.begin(row)
            row.done = self.config.num_layers
            row.kept = {layer: states[layer][at] for layer in self.layers_kept}
        self.name(())
        return slots

    def kv(self, layer: int, slots: Seq[int]) -> tuple[Floats, Floats]:
        """Keys and values of ``slots`` at ``layer``: (slots, kv_heads, head_dim) fp32. Raises RowError."""
        if not 0 <= layer < self.config.num_layers:
            raise RowError(f"layer {layer}: allowed are 0..{self.config.num_layers - 1}")
        late = [row.slot for row in map(self.find, slots) if row.done <= layer]
        if late:
            raise RowError(f"slot {late[0]} has not done layer {layer}: advance it to {layer + 1} first")
        index = [int(slot) for slot in slots]
        keys, values = self.keys[layer, index], self.values[layer, index]
        return _numpy(keys), _numpy(values)

    def keep(self, layers: Seq[int], positions: int) -> None:
        """Keep states of rows that begin from now on. Raises RowError."""
        layers = tuple(int(layer) for layer in layers)
        if positions < 0:
            raise RowError(f"keep {positions} positions: give 0 or more, and no layers to keep nothing")
        if any(not 1 <= layer <= self.config.num_layers for layer in layers):
            raise RowError(f"keep layers {list(layers)}: allowed are 1..{self.config.num_layers}")
        if sorted(set(layers)) != list(layers):
            raise RowError(f"keep layers {list(layers)}: give each layer once, in ascending order")
        for row in (*self._committed, *self._live.values()):
            row.forget()
        self.layers_kept, self._positions_kept = layers, int(positions)

    @property
    def kept(self) -> int:
        """Latest complete committed positions, without a gap, whose states are kept."""
        complete = self._committed[: self._complete]
        return next((i for i, row in enumerate(reversed(complete)) if not row.keeping), len(complete))

    def begin(self, row: Row) -> None:
        """At a row's first layer: whether its states are kept is decided here."""
        row.keeping = bool(self.layers_kept)
        self._begun.add(row)

    def kept_state(self, slot: int, layer: int) -> Tensor:
        """What was kept of a row after ``layer`` layers: (hidden_size,) fp32. Raises RowError."""
        row = self.find(slot)
        if layer not in self.layers_kept:
            raise RowError(f"layer {layer} is not kept: those kept are {list(self.layers_kept)}; see keep()")
        if not row.keeping:
            raise RowError(
                f"the states of slot {slot} are not kept: either it was begun before keep(), or it is "
                f"complete and older than the latest {self._positions_kept} complete positions"
            )
        if layer not in row.kept:
            raise RowError(f"slot {slot} has done {row.done} layers, not {layer}: advance it first")
        return row.kept[layer]

    def name(self, rows: Iterable[Row]) -> None:
        """Remember the rows named in the latest advance: their hidden states stay readable."""
        self._named = set(rows)
        self._clean()

    def hidden(self, slot: int) -> Tensor:
        """Hidden state of a row after its last done layer: (hidden_size,) fp32. Raises RowError."""
        row = self.find(slot)
        if row.hidden is None:
            why = "no layer of it is done" if row.done == 0 else "it was complete before the latest advance"
            raise RowError(f"slot {slot} has no hidden state to read: {why}; advance it first")
        return row.hidden

    def _clean(self) -> None:
        """Forget what the protocol no longer promises, so that tests see who relies on it."""
        self.release(list(self._begun))
        if self._poison:
            used = {row.slot for row in self._committed} | set(self._live)
            unused = [slot for slot in range(self._capacity) if slot not in used]
            self.keys[:, unused] = float("nan")
            self.values[:, unused] = float("nan")

    def release(self, rows: Iterable[Row]) -> None:
        """Forget states of ``rows`` that are no longer promised, and kept ones beyond their number."""
        committed, layers, complete = self._committed, self.config.num_layers, self._complete
        for row in rows:
            is_text = row.slot < len(committed) and committed[row.slot] is row
            if is_text and row.done == layers and row not in self._named:
                row.hidden = None
            if row.hidden is None or not (is_text or self._live.get(row.slot) is row):
                self._begun.discard(row)
        end = max(0, complete - self._positions_kept)
        self._let_go = min(self._let_go, len(committed))
        for row in committed[self._let_go : end]:
            row.forget()
        self._let_go = max(self._let_go, end)


def _numpy(tensor: Tensor) -> Floats:
    array: Floats = tensor.to(torch.float32).cpu().numpy().astype(np.float32, copy=True)
    return array
