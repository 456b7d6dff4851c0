"""Rounds with early exits as they are recorded: bodies in bodies, kernel by kernel, and what they refuse."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda_exit_round import ExitShape  # noqa: E402
from specee.backends.cuda_exit_rounds import ExitLaunch  # noqa: E402
from specee.cuda.exit_record import ExitPlan  # noqa: E402
from specee.cuda.exit_round import exit_round  # noqa: E402
from specee.cuda.graph import Means  # noqa: E402
from specee.cuda.program import If, Launch  # noqa: E402
from specee.errors import CapacityError, ConfigurationError  # noqa: E402
from tests.graph.exit_pair import CANDIDATES, CAPACITY, LAYERS, ExitPair, Text, both, scripted  # noqa: E402
from tests.graph.place import Place  # noqa: E402


def launched(pair: ExitPair, texts: list[Text], *, one_by_one: bool) -> ExitLaunch:
    """A round with two rows of each text that is run by hand."""
    shape = ExitShape(2, pair.whole.exits, (3,))
    parts = pair.whole.backend._exits._parts.make_exits([text.state for text in texts], shape)
    launcher = pair.place.launcher
    return ExitLaunch(parts, Means(launcher, launcher.function, pair.place.library, one_by_one))


@pytest.mark.parametrize("leaves", [2, 4, None])
def test_kernel_by_kernel_is_the_same(place: Place, rng: np.random.Generator, leaves: int | None) -> None:
    """As a graph, and launched by a driver that has no conditional nodes; a row of each waits somewhere."""
    pair = scripted(place, rng, leaves)
    texts, _ = both(pair, rng)
    begins = (2, 3)
    for text, layer in zip(texts, begins, strict=True):
        pair.whole.backend.advance([(text.state, [text.state.length - 1])], layer)
        text.state.append([3])
    waiting = pair.whole.backend._exits._wanted([text.call((), 0.5) for text in texts])
    assert waiting is not None
    plans = [
        ExitPlan(
            *([row.token for row in one.rows], [layer, 0], one.rows[-1].position),
            *((0, 1, 3), range(CANDIDATES), threshold),
        )
        for one, layer, threshold in zip(waiting, begins, (0.5, 0.95), strict=True)
    ]
    found = []
    for one_by_one in (False, True):
        one = launched(pair, texts, one_by_one=one_by_one)
        assert one._round.how == ("launches" if one_by_one else "graph")
        run = one.run(waiting, plans)
        found.append((run, one.states.cpu().numpy().tobytes()))
        assert [left.layer for left in run.left] == [leaves or LAYERS, LAYERS]
        assert (run.layers, run.heads) == (LAYERS, 1 if leaves is None else 2)
    assert found[0] == found[1]


def test_what_a_round_consists_of(place: Place, rng: np.random.Generator) -> None:
    """Bodies in bodies: a layer, with rows that join it, a question behind it, and the head's answer."""
    pair = scripted(place, rng)
    texts, _ = both(pair, rng)
    parts = launched(pair, texts, one_by_one=True)._parts
    program = exit_round(parts.state, parts.model())
    first, *rest = program
    layers = [step for step in rest if isinstance(step, If)]
    assert isinstance(first, Launch)
    assert isinstance(rest[-1], Launch)
    assert (first.kernel, rest[-1].kernel, len(layers)) == ("begin_exits", "end_exits", LAYERS + 1)
    for number, layer in enumerate(layers[:-1]):
        assert (layer.condition.values is parts.state.runs, layer.condition.index) == (True, number)
        bodies = [step for step in layer.body if isinstance(step, If)]
        asked = [parts.state.checks] * (number < LAYERS - 1)
        arrays = [*([parts.state.enters] if number else []), *asked]
        assert [one.condition.values.data_ptr() for one in bodies] == [one.data_ptr() for one in arrays]
        if asked:
            (confirms,) = (step for step in bodies[-1].body if isinstance(step, If))
            kernels = [step.kernel for step in confirms.body if isinstance(step, Launch)]
            assert kernels[-2:] == ["confirm_exits", "keep_left"]
            assert "target_pieces" in kernels


def test_rounds_that_do_not_fit_are_refused(place: Place, rng: np.random.Generator) -> None:
    pair = scripted(place, rng)
    texts, _ = both(pair, rng)
    one = launched(pair, texts, one_by_one=True)
    plan = ExitPlan([1], [0], 3)
    for plans, why in (
        ([plan], "1 sequences with up to 1 rows: this round is for 2, with up to 2 each; give a plan for"),
        ([plan, replace(plan, tokens=[1] * 3, begins=[0] * 3)], "2 sequences with up to 3 rows"),
        (
            [plan, replace(plan, tokens=[1] * 2, begins=[LAYERS, 0])],
            rf"a row that begins at layer {LAYERS}: allowed are 0\.\.{LAYERS - 1}; leave out rows",
        ),
        (
            [plan, replace(plan, checked=[1], candidates=[1, 2])],
            f"2 candidates of a row that is checked: this round's predictors take {CANDIDATES}; give as many",
        ),
    ):
        with pytest.raises(ConfigurationError, match=why):
            one._round.run(plans)
    waiting = pair.whole.backend._exits._wanted([text.call((), 0.5) for text in texts])
    assert waiting is not None
    beyond = replace(plan, position=CAPACITY)
    with pytest.raises(CapacityError, match=r"a row at position 64, in a sequence of 64: .* up to 63"):
        one.run(waiting, [plan, beyond])
    parts = pair.whole.backend._exits._parts
    states = [text.state for text in texts]
    for sequences, rows, why in (
        (states, 18, r"2 sequences with 18 rows each: allowed are 1\.\.17 rows, and 64 of all"),
        (states, 0, "with 0 rows each"),
        (states * 17, 2, "34 sequences with 2 rows each"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            parts.make_exits(sequences, ExitShape(rows, pair.whole.exits))
    model = replace(one._parts.model(), checkable=(0, LAYERS))
    with pytest.raises(ConfigurationError, match=rf"checkable layers \[{LAYERS}\]: allowed are 0\.\.4"):
        exit_round(one._parts.state, model)
