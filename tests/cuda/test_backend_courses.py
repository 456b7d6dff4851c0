"""Passes that have been before are launched again unseen: what was launched, and for how long it is known."""

from __future__ import annotations

import gc
import threading
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.backends.cuda_courses import MOST, Course, Courses  # noqa: E402
from specee.backends.cuda_kept import OfSequences  # noqa: E402
from specee.backends.cuda_repeats import Graphs, Recording  # noqa: E402
from specee.cuda import arrays  # noqa: E402
from tests.cuda.recorder import CONFIG, Recorder, recorded, small  # noqa: E402
from tests.random_model import random_model  # noqa: E402


def test_arrays_of_a_step_stand_where_they_stood() -> None:
    """All that a second step of as many rows gets is where it was: it may be launched unseen."""
    backend, recorder, sequence = recorded(3)
    first = [list(launch) for launch in recorder.launches]
    recorder.launches.clear()
    backend._layers._courses = Courses()  # nothing is known of the first one
    backend.advance([(sequence, sequence.append([7, 8, 9]))], CONFIG.num_layers)
    assert len(first) == len(recorder.launches)
    for one, other in zip(first, recorder.launches, strict=True):
        assert one[:3] == list(other[:3])
        for a, b in zip(one[3], other[3], strict=True):
            if isinstance(a, torch.Tensor):
                assert a.data_ptr() == b.data_ptr(), one[0]


def test_a_course_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second step of a kind is launched as the first one was, and no shape is looked at."""
    looked: list[Any] = []

    def watched(array: Any) -> Any:
        looked.append(array)
        return view(array)

    view = arrays.view
    backend, recorder, sequence = recorded(3)
    monkeypatch.setattr(arrays, "view", watched)
    first = list(recorder.launches)
    recorder.launches.clear()
    backend.advance([(sequence, sequence.append([7, 8, 9]))], CONFIG.num_layers)
    assert [launch[:3] for launch in recorder.launches] == [launch[:3] for launch in first]
    assert not looked
    backend.advance([(sequence, sequence.append([7, 8]))], CONFIG.num_layers)
    assert looked, "the negative control: another course is checked"


def test_room_for_longer_texts_makes_other_courses() -> None:
    config = replace(CONFIG, max_position=1024)
    recorder = Recorder()
    model = random_model(config, seed=1, kind="bf16")
    backend = CudaBackend(config, model.slabs(), "bf16", device="cpu", launcher=recorder)
    sequence = backend.sequence(100)
    places = []
    for _ in range(2):
        recorder.launches.clear()
        backend.advance([(sequence, sequence.append([1]))], config.num_layers)
        paths = next(launch for launch in recorder.launches if launch[0] == "fill_paths")
        places.append((paths[3][0].data_ptr(), paths[3][0].shape))
        longer = backend.sequence(1000)
    assert places[0] != places[1]
    assert (places[0][1], places[1][1]) == ((1, 256), (1, 1024))
    assert len(backend._layers._courses) == 1
    assert longer.capacity == 1000


def storages(backend: CudaBackend) -> set[int]:
    """Where the arrays are that known courses hold."""
    known = backend._layers._courses._known.values()
    given = [argument for course in known for launch in course.launches for argument in launch.arguments]
    return {a.untyped_storage().data_ptr() for a in given if isinstance(a, torch.Tensor)}


def test_a_sequence_takes_its_courses_and_its_cache_along() -> None:
    backend = small()
    kept, gone = (backend.sequence(8) for _ in range(2))
    for work in ([kept], [gone], [kept, gone]):
        backend.advance([(s, s.append([1])) for s in work], CONFIG.num_layers)
    assert len(backend._layers._courses) == 3
    places = [sequence.keys.untyped_storage().data_ptr() for sequence in (kept, gone)]
    assert set(places) <= storages(backend)
    del gone, work
    gc.collect()
    assert len(backend._layers._courses) == 1
    assert places[0] in storages(backend)
    assert places[1] not in storages(backend)


NO_GRAPHS = Graphs(None, torch.device("cpu"))


class Text:
    """What a course asks of a sequence: to be there."""


def alone(text: Text) -> Course:
    """The course of one row of ``text``."""
    return Course((0,), (text,), 1, 1, frozenset())  # type: ignore[arg-type]


class Dropping(int):
    """A room; when a lookup first compares it, the sequence goes, and one with its id comes in its place."""

    texts: list[Text]
    others: list[Text]
    dropped = False

    def __ne__(self, other: object) -> bool:
        if not self.dropped:
            self.dropped = True
            old = id(self.texts.pop())
            for _ in range(10_000):  # they are all held, so that the place is taken before long
                self.others.append(Text())
                if id(self.others[-1]) == old:
                    self.texts.append(self.others.pop())
                    break
        return int(self) != other

    __hash__ = int.__hash__


def test_a_sequence_that_goes_during_a_lookup_leaves_nothing_to_one_with_its_id() -> None:
    courses = Courses()
    stays, goes = Text(), [Text()]
    mark = id(goes[0])
    for text in (stays, goes[0]):
        courses.add(alone(text), 9, Recording(Recorder(), NO_GRAPHS))
    del text
    room = Dropping(9)
    room.texts, room.others = goes, []
    assert courses.find(alone(stays), room) is not None
    assert room.dropped
    assert id(goes[0]) == mark
    assert len(courses) == 1
    assert courses.find(alone(goes[0]), 9) is None
    recording = Recording(Recorder(), NO_GRAPHS)
    courses.add(alone(goes[0]), 9, recording)
    assert courses.find(alone(goes[0]), 9) is recording
    goes.clear()
    assert len(courses) == 1, "the later one is watched as the first one was"


def test_a_sequence_that_another_thread_drops_waits_for_the_call_at_work() -> None:
    courses = Courses()
    texts = [Text(), Text()]
    for text in texts:
        courses.add(alone(text), 9, Recording(Recorder(), NO_GRAPHS))
    del text
    with courses._lock:  # a call is at work
        dropping = threading.Thread(target=texts.pop)
        dropping.start()
        dropping.join(timeout=60)
        assert not dropping.is_alive(), "no finalizer waits"
        assert len(courses) == 2, "or changes what is being read"
    assert courses.find(alone(texts[0]), 9) is not None
    assert len(courses) == 1


def test_only_so_many_courses_are_kept() -> None:
    backend = small()
    sequence = backend.sequence(100)
    for rows in range(1, 13):
        for layer in range(1, CONFIG.num_layers + 1):
            backend.advance([(sequence, sequence.append(range(rows)))], layer)
        sequence.rollback(sequence.length)
    assert len(backend._layers._courses) == MOST


def test_sets_of_sequences_have_places_of_their_own() -> None:
    """Two sets here, of each the two latest values; one that is looked up is later than before."""
    kept: OfSequences[str] = OfSequences(2, each=2)
    a, b, c = Text(), Text(), Text()

    def known() -> set[str]:
        return set(kept._known.values())

    for rest in range(3):
        kept.remember([a], rest, f"a{rest}")
    kept.remember([a, b], 0, "ab0")
    assert known() == {"a1", "a2", "ab0"}
    assert kept.look_up([a], 1) == "a1"
    kept.remember([a], 3, "a3")
    kept.remember([c], 0, "c0")
    assert known() == {"a1", "a3", "c0"}, "that of both was the oldest set"
    assert kept.take_out([a], 3)
    assert not kept.take_out([a], 3)
    assert known() == {"a1", "c0"}
    del a
    assert known() == {"c0"}
