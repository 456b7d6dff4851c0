"""Static settings, and texts that change in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from specee.errors import ConfigurationError
from specee.policies import Draft, ExitLayer
from specee.policies.objective import LONGEST
from specee.replay import Recovery, Static, Statics, best_static, recoveries, replay, splice
from tests.unit.recorded import TABLE, planted, random_trace
from tests.unit.test_replay import Always

PLAIN = Static(0, 0, 1.0)


@pytest.mark.parametrize("seed", range(4))
def test_static_settings_are_replays_of_layerskip(seed: int) -> None:
    trace = random_trace(seed)
    statics = Statics(trace)
    for layer in range(1, trace.layers):
        for length in (1, 2, 5, 17):
            run = replay(f"layerskip:exit_layer={layer},speculation_length={length}", trace)
            assert statics.ratio(layer, length) == pytest.approx(run.ratio, rel=1e-9), f"seed {seed}"
            stopped = replay(Always(Draft(0, ExitLayer(layer), length, 0.4)), trace)
            assert statics.ratio(layer, length, 0.4) == pytest.approx(stopped.ratio, rel=1e-9)


@pytest.mark.parametrize("k", [6, 12, 20])
def test_the_best_static_setting_is_where_layers_begin_to_be_right(k: int) -> None:
    sweep = Statics(planted(k)).sweep()
    assert len(sweep) == 23 * LONGEST + 1
    assert [static.ratio for static in sweep] == sorted([static.ratio for static in sweep], reverse=True)
    assert best_static(planted(k)) == sweep[0]
    assert sweep[0].layer in (k, 0)
    assert sweep[-1].layer == k - 1


def test_plain_decoding_is_the_best_where_layers_cost_nothing_but_heads_do() -> None:
    dear = TABLE._replace(head=(1.0, 2.0, 8.0, 20.0))
    assert best_static(planted(6), dear) == (0, 0, 1.0)


def test_a_spliced_text_is_one_and_then_the_other() -> None:
    first, second = planted(6, seed=1), planted(20, seed=2, tokens=50)
    spliced = splice(first, second, 30)
    assert spliced.lengths == (39, 39)
    for text, one, other in zip(spliced.trace.texts, first.texts, second.texts, strict=True):
        assert text.words == one.words[:39] + other.words[9:]
        assert text.prompt == 9
        changes = np.flatnonzero(np.diff(text.matches[:, 5].astype(int)))
        assert changes.tolist() == [37]  # position 38 drafts the first token of the second answer
        assert text.matches[:, 19].all()


@pytest.mark.parametrize(("layers", "at"), [(20, 30), (24, 0), (24, 121)])
def test_what_cannot_be_spliced_is_refused(layers: int, at: int) -> None:
    with pytest.raises(ConfigurationError, match=r"20 layers|1\.\.120"):
        splice(planted(6), planted(6, layers=layers), at)


def test_static_policies_do_not_follow() -> None:
    spliced = splice(planted(6), planted(20), 60)
    found = recoveries(replay("layerskip:exit_layer=6,speculation_length=4", spliced.trace), spliced)
    assert all(len(entry.values) > 100 for entry in found)
    assert [entry.reached() for entry in found] == [None, None]
    best = best_static(spliced.after)
    setting = f"layerskip:exit_layer={best.layer},speculation_length={best.length}"
    found = recoveries(replay(setting, spliced.trace), spliced)
    assert {value for entry in found for value in entry.values} == {1.0}
    assert [entry.settled() for entry in found] == [0, 0]
    plain = recoveries(replay("autoregressive", spliced.trace), spliced)
    assert plain[0].values == pytest.approx([1 / best.ratio] * 119)


@pytest.mark.parametrize(("first", "second"), [(6, 20), (20, 6), (6, 12)])
def test_del_follows_within_20_rounds(first: int, second: int) -> None:
    spliced = splice(planted(first), planted(second, tokens=200), 60)
    for entry in recoveries(replay("del", spliced.trace), spliced):
        reached = entry.reached()
        assert reached is not None
        assert reached <= 20


def test_a_recovery_in_numbers() -> None:
    entry = Recovery((0.2, 0.9, 0.5, 0.86, 1.0), PLAIN)
    assert (entry.reached(), entry.settled(), entry.reached(0.99), entry.settled(0.99)) == (1, 3, 4, 4)
    empty = Recovery((), PLAIN)
    assert (empty.reached(), empty.settled()) == (None, 0)
