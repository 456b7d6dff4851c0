"""What is kept for some sequences together, until one of them goes."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from collections.abc import Sequence as Seq
from typing import Generic, TypeVar

T = TypeVar("T")
_Ids = tuple[int, ...]
_Key = tuple[_Ids, _Ids, Hashable]  # sequences, others, rest


class OfSequences(Generic[T]):
    """The latest ``most`` values; those of a sequence go with it, or its cache would stay.

    With ``each``, values of the latest ``most`` sets of sequences instead, and of each the latest ``each``:
    however many kinds of value some sequences have in turn, others keep theirs. Values may be of ``others``
    beside sequences, and go with these, too.

    Values may hold a sequence's arrays, never itself. A sequence may go at any moment, in another thread or
    while one of these calls runs. So its finalizer only writes down that it has gone; its values go at once
    if nobody is at work here, else with the call that is. A sequence that gets its id is born later, and
    finds none of them.
    """

    def __init__(self, most: int, each: int | None = None) -> None:
        self._most, self._each = most, each
        self._known: OrderedDict[_Key, T] = OrderedDict()
        self._watched: set[int] = set()
        self._gone: deque[int] = deque()
        self._lock = threading.Lock()  # not reentrant: a finalizer may run inside of a call

    def __len__(self) -> int:
        return len(self._known)

    def clear(self) -> None:
        """Keep nothing of what there is."""
        with self._lock:
            self._known.clear()
        self._clear_if_free()

    def look_up(
        self,
        sequences: Seq[object],
        rest: Hashable,
        stale: Callable[[Hashable], bool] = lambda _: False,
        others: Seq[object] = (),
    ) -> T | None:
        """What is kept for them and ``rest``, or None; values with a ``stale`` rest are dropped."""
        with self._lock:
            self._clear()
            for key in [key for key in self._known if stale(key[2])]:
                del self._known[key]
            key = _key(sequences, others, rest)
            found = self._known.get(key)
            if found is not None:
                self._known.move_to_end(key)
        self._clear_if_free()
        return found

    def remember(self, sequences: Seq[object], rest: Hashable, value: T, others: Seq[object] = ()) -> None:
        """Keep ``value`` for them and ``rest``."""
        with self._lock:
            self._clear()
            for one in (*sequences, *others):
                if id(one) not in self._watched:
                    self._watched.add(id(one))
                    weakref.finalize(one, self._forget, id(one)).atexit = False
            key = _key(sequences, others, rest)
            self._known[key] = value
            self._known.move_to_end(key)
            for old in self._too_many():
                del self._known[old]
        self._clear_if_free()

    def take_out(self, sequences: Seq[object], rest: Hashable, others: Seq[object] = ()) -> bool:
        """Forget what is kept for them and ``rest``; whether there was anything."""
        with self._lock:
            found = self._known.pop(_key(sequences, others, rest), None)
        self._clear_if_free()
        return found is not None

    def _too_many(self) -> list[_Key]:
        """Keys of values that there is no place for."""
        latest = list(reversed(self._known))
        if self._each is None:
            return latest[self._most :]
        found, of_sets = [], dict[_Ids, int]()
        for key in latest:
            before = of_sets.get(key[0], 0)
            if before == self._each or (before == 0 and len(of_sets) == self._most):
                found.append(key)
            else:
                of_sets[key[0]] = before + 1
        return found

    def _forget(self, one: int) -> None:
        self._gone.append(one)
        self._clear_if_free()

    def _clear_if_free(self) -> None:
        """Drop what has gone, unless a call is at work: that one looks again when it ends."""
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._clear()
            finally:
                self._lock.release()

    def _clear(self) -> None:
        while self._gone:
            one = self._gone.popleft()
            self._watched.discard(one)
            for key in [key for key in self._known if one in key[0] or one in key[1]]:
                del self._known[key]


def _key(sequences: Seq[object], others: Seq[object], rest: Hashable) -> _Key:
    return tuple(map(id, sequences)), tuple(map(id, others)), rest
