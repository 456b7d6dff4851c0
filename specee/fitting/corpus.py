"""Texts to fit on, in a folder: shards that are written whole, each from a seed of its own.

So a run that was killed goes on where it was, and comes to the same texts. What is read back has no question
twice; one in 32 questions is held out, whatever else is in the corpus.
"""

from __future__ import annotations

import io
import itertools
import random
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from specee.errors import CheckpointError
from specee.fitting.openings import KINDS
from specee.fitting.writer import Conversation, Wish, Writer
from specee.types import Sampling
from specee.whole_file import write_whole

_HELD_OUT = 32  # one in so many is kept from fitting
# Temperatures that questions and answers are drawn with. Drafts are mostly asked for by greedy decoding.
_QUESTIONS, _ANSWERS = (0.7, 1.0, 1.0), (0.0, 0.0, 0.6, 1.0)
_MIN_P = 0.05  # drops what would be odd, at less cost than a sum over sorted tokens

Tokens = npt.NDArray[np.int32]


class Text(NamedTuple):
    """``tokens`` (length,) of a conversation; the model wrote those from ``begin`` on."""

    tokens: Tokens
    begin: int


class _Shard:
    """What comes of ``left`` wishes, in any order."""

    def __init__(self, left: int) -> None:
        self.left = left
        self._found: list[Conversation | None] = [None] * left

    def put(self, place: int, conversation: Conversation | None) -> None:
        """At its place, whenever it ends."""
        self._found[place] = conversation
        self.left -= 1

    def texts(self) -> list[Conversation]:
        """In the order of the wishes."""
        return [one for one in self._found if one is not None]


class Corpus:
    """The shards in ``folder``, and those to come; ``seed`` decides all of them.

    ``shard``: conversations to ask for at a time; some come to nothing.
    """

    def __init__(self, folder: Path, seed: int = 0, shard: int = 256) -> None:
        self.folder, self.seed, self._shard = folder, seed, shard
        self._counts: dict[int, int] = {}

    @property
    def shards(self) -> int:
        """How many there are: those that stand in order."""
        return next(index for index in itertools.count() if not self._path(index).exists())

    def write(self, writer: Writer, wanted: Callable[[int], bool]) -> Iterator[bool]:
        """Write shards that are missing, in order; gives of each whether there is any text in it.

        ``wanted`` is asked before one is begun, with how many are begun and not written yet. There are some:
        the writer is not to be short of wishes while the last texts of a shard come to their ends.
        Raises OSError.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        order: list[int] = []
        begun: dict[int, _Shard] = {}  # ascending

        def wishes_wanted() -> Iterator[Wish]:
            for index in itertools.count():
                if self._path(index).exists():
                    continue
                if not wanted(len(begun)):
                    return
                order.append(index)
                begun[index] = _Shard(self._shard)
                yield from wishes(self.seed, index, self._shard)

        for place, conversation in writer.stream(wishes_wanted()):
            begun[order[place // self._shard]].put(place % self._shard, conversation)
            for index in list(itertools.takewhile(lambda index: begun[index].left == 0, begun)):
                texts = begun.pop(index).texts()
                write_whole(self._path(index), _packed(texts))
                yield bool(texts)

    def written(self) -> int:
        """Tokens that the model wrote in all shards. Raises CheckpointError."""
        return sum(map(self._count, range(self.shards)))

    def texts(self, tokens: int | None = None) -> tuple[list[Text], list[Text]]:
        """Texts to fit on and texts held out, none whose question has come before.

        Of as many shards as it takes until the model has written ``tokens``, None for all: what a run that
        was stopped, or one that wanted more, has left behind those changes nothing. Raises CheckpointError.
        """
        seen: set[int] = set()
        fitted: list[Text] = []
        held_out: list[Text] = []
        count = 0
        for index in range(self.shards):
            if tokens is not None and count >= tokens:
                break
            count += self._count(index)
            for one in self._read(index):
                # A text that was gone on with has no question.
                chat = one.answer > one.question
                key = key_of(one.tokens[: one.answer] if chat else one.tokens)
                if key not in seen:
                    into = held_out if is_held_out(key) else fitted
                    into.append(Text(np.array(one.tokens, np.int32), one.question))
                seen.add(key)
        return fitted, held_out

    def _count(self, index: int) -> int:
        """Tokens that the model wrote in a shard, which is read once."""
        if index not in self._counts:
            self._counts[index] = sum(len(one.tokens) - one.question for one in self._read(index))
        return self._counts[index]

    def _path(self, index: int) -> Path:
        return self.folder / f"corpus-{self.seed}-{self._shard}-{index:05d}.npz"

    def _read(self, index: int) -> list[Conversation]:
        path = self._path(index)
        try:
            with np.load(path, allow_pickle=False) as file:
                tokens, ends = file["tokens"].tolist(), file["ends"].tolist()
                places = zip(file["questions"].tolist(), file["answers"].tolist(), strict=True)
        except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
            raise CheckpointError(f"{path}: no complete shard of a corpus ({error}). Delete it.") from error
        begins = [0, *ends[:-1]] if ends else []
        return [
            Conversation(tuple(tokens[begin:end]), *place)
            for begin, end, place in zip(begins, ends, places, strict=True)
        ]


def wishes(seed: int, shard: int, count: int) -> list[Wish]:
    """What a shard is to be about: the same for the same seed."""
    rng = random.Random(f"specee corpus {seed} {shard}")
    found = []
    for _ in range(count):
        opening = rng.choice(KINDS[rng.choice(list(KINDS))])
        question, answer = rng.choice(_QUESTIONS), rng.choice(_ANSWERS)
        seeds = rng.getrandbits(32), rng.getrandbits(32)
        found.append(
            Wish(
                opening,
                Sampling(temperature=question, min_p=_MIN_P, seed=seeds[0]),
                Sampling(temperature=answer, min_p=_MIN_P, seed=seeds[1]),
            )
        )
    return found


def _packed(written: list[Conversation]) -> bytes:
    content = io.BytesIO()
    tokens = [token for one in written for token in one.tokens]
    np.savez_compressed(
        content,
        tokens=np.array(tokens, np.int32),
        ends=np.cumsum([len(one.tokens) for one in written], dtype=np.int64),
        questions=np.array([one.question for one in written], np.int64),
        answers=np.array([one.answer for one in written], np.int64),
    )
    return content.getvalue()


def key_of(tokens: Sequence[int]) -> int:
    """Of a question, the same in every run."""
    return zlib.crc32(np.array(tokens, np.int32).tobytes())


def is_held_out(key: int) -> bool:
    """Whether what has that key is kept from fitting."""
    return key % _HELD_OUT == 0
