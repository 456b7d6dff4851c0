"""``--stats``: lines made of hand-made statistics."""

from __future__ import annotations

import io
import sys

import pytest

from specee.cli import stats
from specee.cli.labels import SHARES, source_label
from specee.cli.sparkline import plain, sparkline
from specee.cli.stats import print_statistics
from specee.engine.statistics import Statistics
from specee.policies import DraftCost, DraftSource, ExitLayer, NgramLookup, Outcome, Round, Times

SHALLOW, DEEP, LOOKUP = ExitLayer(8), ExitLayer(24), NgramLookup()
NO_TIME = Times()


def cost(source: DraftSource) -> DraftCost:
    return DraftCost(source.layer, 0.5) if isinstance(source, ExitLayer) else DraftCost(0, 0.0)


def statistics_lines(made: Statistics) -> list[str]:
    return stats.statistics_lines(made, cost)


def drafted(drafted: int, accepted: int, source: object = DEEP, sequence: int = 0) -> Round:
    return Round(sequence, tuple(range(accepted + 1)), source, drafted, accepted, (0.5,) * drafted)


def plain_round(sequence: int = 0) -> Round:
    return Round(sequence, (7,))


def statistics(*steps: tuple[Round, ...], seconds: float = 0.5, times: Times = NO_TIME) -> Statistics:
    """Of a prompt step, which is never counted in time, and ``steps`` of ``seconds`` each."""
    result = Statistics()
    sequences = sorted({entry.sequence for step in steps for entry in step} or {0})
    result.add(Outcome(tuple(map(plain_round, sequences)), Times(9.0, 9.0, 9.0, 9.0)), 40.0)
    for step in steps:
        result.add(Outcome(step, times), seconds)
    return result


def line(lines: list[str], begin: str) -> str:
    found = [one for one in lines if one.strip().startswith(begin)]
    assert len(found) == 1, lines
    return found[0]


def test_without_steps_there_is_nothing_to_say() -> None:
    assert statistics_lines(Statistics()) == []


def test_a_prompt_alone() -> None:
    assert statistics_lines(statistics()) == ["steps   the prompt's and 0 more", "drafts  none"]


def test_plain_decoding_has_no_tables_of_drafts() -> None:
    lines = statistics_lines(statistics((plain_round(),), (plain_round(),), times=Times(verify=0.5)))
    shares = "draft 0.0%, draft head 0.0%, verify 100.0%, head 0.0%, shadow 0.0%, Python 0.0%"
    assert lines == [
        "steps   the prompt's and 2 more, 1.00 tokens a round",
        "drafts  none",
        f"time    {shares} of 1.00 s after the prompt",
    ]


def test_zero_seconds_have_no_shares() -> None:
    assert not any("time" in one for one in statistics_lines(statistics((drafted(2, 1),), seconds=0.0)))


def test_acceptance_as_a_whole_and_by_source() -> None:
    lines = statistics_lines(
        statistics((drafted(4, 3),), (drafted(4, 1, SHALLOW),), (drafted(2, 2, LOOKUP),))
    )
    assert line(lines, "steps") == "steps   the prompt's and 3 more, 3.00 tokens a round"
    assert line(lines, "drafts") == "drafts  10 tokens, 6 accepted (60.0%)"
    assert lines[2:5] == [
        "        exit layer 8   4 tokens, 1 accepted (25.0%), each for 8 layers and 0.50 heads",
        "        exit layer 24  4 tokens, 3 accepted (75.0%), each for 24 layers and 0.50 heads",
        "        prompt lookup  2 tokens, 2 accepted (100.0%), each for nothing",
    ]


def test_several_sequences_are_counted_together() -> None:
    step = (drafted(4, 3, sequence=0), drafted(2, 0, sequence=1))
    lines = statistics_lines(statistics(step, step, (plain_round(1),)))
    assert line(lines, "steps") == "steps   the prompt's and 3 more of 2 sequences, 2.20 tokens a round"
    assert line(lines, "drafted").split("  ")[0].split()[1] == "██▁"  # (4 + 2) / 2 twice, then none


def test_the_histogram_has_every_count_and_a_bar_for_each_that_occurred() -> None:
    rounds = [(drafted(3, 0),)] * 100 + [(drafted(3, 3),)]
    lines = statistics_lines(statistics(*rounds, (plain_round(),)))
    bars = {
        one.split(" accepted")[0].split()[-1]: one for one in lines if " accepted " in one and "(" not in one
    }
    assert list(bars) == ["0", "1", "2", "3"]
    counts = [(int(one.split()[-2 if "#" in one else -1]), one.count("#")) for one in bars.values()]
    assert counts == [(100, 40), (0, 0), (0, 0), (1, 1)]


def test_layers_and_lengths_over_time() -> None:
    lines = statistics_lines(
        statistics(
            (drafted(1, 0, SHALLOW),), (drafted(2, 2, DEEP),), (plain_round(),), (drafted(8, 4, DEEP),)
        )
    )
    assert line(lines, "layers") == "layers  ▁█ █  8 to 24"
    assert line(lines, "drafted") == "drafted ▂▃▁█  0 to 8"
    assert line(lines, "kept") == "kept    ▁▅ █  0 to 4"


def test_prompt_lookup_has_no_layers() -> None:
    lines = statistics_lines(statistics((drafted(2, 1, LOOKUP),)))
    assert not any(one.startswith("layers") for one in lines)
    assert line(lines, "drafted") == "drafted 2 throughout"


def test_shares_leave_the_prompt_out() -> None:
    times = Times(draft=0.2, draft_head=0.1, verify=0.1, head=0.05)
    wanted = "draft 40.0%, draft head 20.0%, verify 20.0%, head 10.0%, shadow 0.0%, Python 10.0% of 1.00 s"
    assert wanted in statistics_lines(statistics((drafted(1, 1),), (drafted(1, 1),), times=times))[-1]


def test_every_share_has_a_name() -> None:
    assert set(SHARES) == set(statistics((plain_round(),)).shares)


def test_sources_in_words() -> None:
    class Oracle:
        """A draft source of somebody else's."""

    assert source_label(ExitLayer(3)) == "exit layer 3"
    assert source_label(ExitLayer(3, adapted=True)) == "exit layer 3, adapted"
    assert source_label(NgramLookup()) == "prompt lookup"
    assert source_label(Oracle()) == "Oracle"


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([], ""),
        ([None, None], ""),
        ([3], "3 throughout"),
        ([2.5, None, 2.5], "2.5 throughout"),
        ([0, 7], "▁█  0 to 7"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█  1 to 8"),
        ([1, None, 2], "▁ █  1 to 2"),
    ],
)
def test_sparklines(values: list[float | None], wanted: str) -> None:
    assert sparkline(values) == wanted


@pytest.mark.parametrize("count", [59, 60, 61, 120, 1000])
def test_a_long_series_is_averaged_into_columns(count: int) -> None:
    drawn = sparkline(list(range(count))).split("  ")[0]
    assert len(drawn) == min(count, 60)
    assert list(drawn) == sorted(drawn)
    assert ("means of" in sparkline(list(range(count)))) is (count > 60)


def test_a_column_is_the_mean_of_its_values() -> None:
    assert sparkline([0, 2, 4, None, 9, 9], width=3) == "▁▄█  1 to 9, means of up to 2 steps"
    assert sparkline([None, None, 1, 2], width=2) == "1.5 throughout"


def test_it_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    made = statistics((drafted(1, 0),), (drafted(2, 1),))
    print_statistics(made, cost)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == statistics_lines(made)


def test_terminals_without_blocks_get_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    made = statistics((drafted(1, 0),), (drafted(2, 1),))
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    print_statistics(made, cost)
    sys.stderr.flush()
    assert raw.getvalue().decode().splitlines() == [plain(one) for one in statistics_lines(made)]
    assert b"drafted 07  1 to 2" in raw.getvalue()
