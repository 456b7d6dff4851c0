"""Hidden states of texts, as the engine computes them: what a drafter reads, and what it is to guess."""

from __future__ import annotations

import io
import shutil
import zlib
from collections.abc import Callable
from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np
import numpy.typing as npt

from specee.backends.protocol import Backend, Floats
from specee.errors import CheckpointError
from specee.fitting.timetable import Pace
from specee.types import KVDtype
from specee.whole_file import write_whole

Halves = npt.NDArray[np.float16]

_CHUNK = 64  # texts whose states are in one file
_TOGETHER = 8  # texts that pass a layer together
_SPARE = 1 << 30  # bytes of a disk that are left alone
_MOST = np.finfo(np.float16).max
_MOST_OPEN = 256  # files: systems allow a thousand or so


def hidden_states(
    backend: Backend, texts: Seq[Seq[int]], layers: Seq[int], kv_dtype: KVDtype | None = None
) -> list[Halves]:
    """States of every position after each of ``layers`` (1..num_layers, ascending).

    For each text (tokens, layers, hidden_size), fp16, what is larger cut to it. All texts go through a layer
    together.
    """
    work = []
    for text in texts:
        state = backend.sequence(len(text), kv_dtype)
        work.append((state, list(state.append(text))))
    lengths = [len(text) for text in texts]
    found = np.empty((sum(lengths), len(layers), backend.config.hidden_size), np.float16)
    for index, layer in enumerate(layers):
        backend.advance(work, layer)
        found[:, index] = halves(backend.hidden(work))
    return np.split(found, np.cumsum(lengths)[:-1])


def halves(states: Floats) -> Halves:
    """In fp16, what is larger cut to it."""
    return np.clip(states, -_MOST, _MOST).astype(np.float16)


def _read(path: Path) -> Halves:
    try:
        whole: Halves = np.load(path, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise CheckpointError(f"{path}: no complete file of states ({error}). Delete it.") from error
    return whole


class StoredStates:
    """States of many texts, computed once and kept in ``folder``, a file for ``chunk`` texts.

    Training comes back to each text a few times, and to compute its states takes about as long as to train
    on it. Where the disk has no room they are computed each time.
    """

    def __init__(
        self,
        backend: Backend,
        texts: Seq[Seq[int]],
        layers: Seq[int],
        folder: Path,
        kv_dtype: KVDtype | None = None,
        chunk: int | None = None,
    ) -> None:
        self._each = min(chunk or _CHUNK, _CHUNK)
        self._backend, self._texts, self._layers, self._folder = backend, texts, tuple(layers), folder
        self._kv_dtype = kv_dtype
        self._opened: dict[int, list[Halves]] = {}
        needed = 2 * len(self._layers) * backend.config.hidden_size * sum(map(len, texts))
        folder.mkdir(parents=True, exist_ok=True)
        self.chunks = -(-len(texts) // self._each)
        there = sum(path.stat().st_size for path in map(self._path, range(self.chunks)) if path.exists())
        self.stored = needed - there + _SPARE < shutil.disk_usage(folder).free

    def compute(self, tell: Callable[[int, int], None], pace: Pace | None = None) -> int:
        """All that is not there yet and that there is time for; of how many texts, at least of one file's.

        ``tell`` hears how many files there are of how many. Raises OSError.
        """
        for chunk in range(self.chunks if self.stored else 0):
            if chunk and pace is not None and pace.over():
                return chunk * self._each
            tell(chunk, self.chunks)
            if not self._path(chunk).exists():
                content = io.BytesIO()
                np.save(content, np.concatenate(self._computed(self._range(chunk))))
                write_whole(self._path(chunk), content.getvalue())
        return len(self._texts)

    def of(self, indices: Seq[int]) -> list[Halves]:
        """States of these texts: (tokens, layers, hidden_size) each. Raises CheckpointError."""
        if not self.stored:
            return self._computed(indices)
        return [self._chunk(index // self._each)[index % self._each] for index in indices]

    def remove(self) -> None:
        """Delete the files, also those that a run of another plan has left."""
        self._opened.clear()
        for path in self._folder.glob("states-*.npy"):
            path.unlink(missing_ok=True)

    def _range(self, chunk: int) -> range:
        return range(chunk * self._each, min((chunk + 1) * self._each, len(self._texts)))

    def _computed(self, indices: Seq[int]) -> list[Halves]:
        found: list[Halves] = []
        for begin in range(0, len(indices), _TOGETHER):
            some = [self._texts[index] for index in indices[begin : begin + _TOGETHER]]
            found += hidden_states(self._backend, some, self._layers, self._kv_dtype)
        return found

    def _chunk(self, chunk: int) -> list[Halves]:
        if chunk not in self._opened:
            if len(self._opened) >= _MOST_OPEN:
                self._opened.clear()
            whole = _read(self._path(chunk))
            lengths = [len(self._texts[index]) for index in self._range(chunk)]
            self._opened[chunk] = np.split(whole, np.cumsum(lengths)[:-1])
        return self._opened[chunk]

    def _path(self, chunk: int) -> Path:
        """Named for what is in it, so that other texts or layers have files of their own."""
        mark = zlib.crc32(repr(self._layers).encode())
        for index in self._range(chunk):
            mark = zlib.crc32(np.array(self._texts[index], np.int32).tobytes(), mark)
        return self._folder / f"states-{chunk:05d}-{mark:08x}.npy"
