"""Tables, plots and HTML from a recorded run."""

from __future__ import annotations

import base64
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from specee.bench.report import document, kernels, plots, tables
from specee.bench.report.numbers import percent_ranged, ranged, seconds, short
from specee.bench.report.tables import Table
from specee.errors import BackendUnavailableError, ConfigurationError

RECORDED = Path(__file__).with_name("recorded_bench.json")


@pytest.fixture
def report() -> document.Report:
    return document.load(RECORDED)


def cells(found: list[Table], row: str) -> dict[str, str]:
    """One line of the first table by the names of its columns."""
    (line,) = [line for line in found[0].rows if line[0] == row]
    return dict(zip(found[0].header, line, strict=True))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"), (394.4, "394"), (38.16, "38.2"), (1.0, "1.00"), (9.996, "10.0"), (0.9996, "1.00"),
        (0.00512, "0.00512"), (20480.0, "20,480"), (-2.345, "-2.35"), (float("inf"), "inf"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert short(value) == text


def test_ranges_and_times() -> None:
    spread = {"median": 4.169, "min": 2.93, "max": 5.62}
    assert ranged(spread, "x") == "4.17x (2.93 to 5.62)"
    assert percent_ranged({"median": 0.635, "min": 0.37, "max": 0.88}) == "64% (37% to 88%)"
    assert [seconds(value) for value in (2.5, 0.0123, 0.0000451)] == ["2.50 s", "12.3 ms", "45.1 µs"]


def test_every_part_has_a_table_and_every_line_its_columns(report: document.Report) -> None:
    assert set(report.parts) == {"speed", "rows", "batch", "formats", "kernels"}
    for name, part in report.parts.items():
        found = tables.of(document.kind(name), part, detailed=True)
        assert found, name
        for table in found:
            assert table.rows, table.title
            assert {len(line) for line in table.rows} == {len(table.header)}, table.title


def test_figures_reach_their_columns(report: document.Report) -> None:
    speed = report.parts["speed"]
    line = cells(tables.of("speed", speed), "specee")
    assert line["decode tokens/s"] == ranged(speed["contenders"]["specee"]["decode_tokens_s"])
    assert line["memory"].endswith(" MB")
    formats = report.parts["formats"]
    line = cells(tables.of("formats", formats), "int4")
    assert line["perplexity"] == f"{formats['formats']['int4']['perplexity']:.3f}"


def test_acceptance_is_shown_where_a_policy_has_one(report: document.Report) -> None:
    speed = report.parts["speed"]
    assert cells(tables.of("speed", speed), "specee")["tokens/step"] == "1.00"
    speed["contenders"]["specee"] |= {"tokens_per_step": 2.4, "acceptance": 0.71}
    assert cells(tables.of("speed", speed), "specee")["tokens/step"] == "2.40 (71%)"


SHARES = {"draft": 0.3, "draft_head": 0.1, "verify": 0.4, "head": 0.15, "python": 0.05}


def test_drafts_have_a_table_where_somebody_drafts(report: document.Report) -> None:
    speed = report.parts["speed"]
    plain = {"drafted": 0, "tokens_per_round": 1.0, "shares": {"verify": 0.9, "python": 0.1}}
    plain["decode_to_first"] = {"median": 1.0, "min": 1.0, "max": 1.0}
    speed["contenders"]["specee"] |= plain
    assert len(tables.of("speculation", speed)) == 2
    drafting = {**plain, "drafted": 10, "acceptance": 0.71, "tokens_per_round": 2.4, "shares": SHARES}
    drafting["decode_to_first"] = {"median": 1.4, "min": 1.2, "max": 1.5}
    speed["contenders"]["specee:layerskip"] = {**speed["contenders"]["specee"], **drafting}
    table = tables.of("speculation", speed)[1]
    line = cells([table], "specee:layerskip")
    assert (line["accepted"], line["tokens/round"], line["verify"]) == ("71%", "2.40", "40.0%")
    assert line["to specee"] == "1.40x (1.20 to 1.50)"
    assert (line["same text"], line["Python"]) == ("4 of 4", "5.0%")
    assert cells([table], "specee")["accepted"] == ""


def test_speculation_is_drawn_like_speed_on_either_kind_of_prompts(report: document.Report) -> None:
    pytest.importorskip("matplotlib")
    part = report.parts["speed"]
    report.parts.clear()
    report.parts["speculation-copy"] = part
    assert len(list(document.images("speculation-copy", part))) == 1
    assert "<h2>Speculation: copy</h2>" in document.as_html(report)


def lossless_result(differing: list[dict[str, Any]], left: int = 0) -> dict[str, Any]:
    one = {
        "weights": "packed", "mode": "greedy", "batch": 4, "policy": "layerskip:exit_layer=3", "prompts": 40,
        "tokens": 5120, "differing": differing, "decode_tokens_s": 312.4, "acceptance": 0.5,
        "tokens_per_round": 2.0,
    }  # fmt: skip
    return {"combinations": [one], "combinations_left": left}


def test_lossless_combinations_and_where_texts_part() -> None:
    (table,) = tables.of("lossless", lossless_result([], left=3))
    assert table.rows[0][:4] == ("packed", "greedy", "4", "layerskip:exit_layer=3")
    assert table.rows[0][6] == "0"
    assert table.note.startswith("3 combinations")
    differing = [{"prompt": index, "position": 7, "plain": 5, "got": None} for index in range(30)]
    table, differences = tables.of("lossless", lossless_result(differing))
    assert table.rows[0][6] == "30"
    assert differences.rows[1][4:] == ("1", "7", "5", "None")
    assert differences.note == "the first 20 of 30"


def test_overhead_says_who_keeps_to_the_goal() -> None:
    def policy(share: float) -> dict[str, Any]:
        spread = {"median": share, "min": share, "max": share}
        return {
            "tokens_per_step": 1.5, "python_us_per_step": spread, "python_us_per_token": spread,
            "share_of_decode": spread, "share_at_rate": spread,
        }  # fmt: skip

    result = {
        "weights": "packed", "threads": 2, "clock": "wall time", "runs": 12, "rate": 300, "goal": 0.03,
        "policies": {"autoregressive": policy(0.0299), "threshold": policy(0.031)},
    }  # fmt: skip
    found = tables.of("overhead", result)
    assert cells(found, "autoregressive")["within 3%"] == "yes"
    assert cells(found, "threshold")["within 3%"] == "no"
    assert cells(found, "threshold")["at 300 tokens/s"] == "3.1%"


def test_missing_contenders_are_told_of(report: document.Report) -> None:
    speed = report.parts["speed"] | {"missing": {"llama.cpp": "not installed"}}
    assert tables.of("speed", speed)[-1].rows == [("llama.cpp", "not installed")]


def test_text_columns_line_up() -> None:
    lines = tables.as_text(
        Table("Title", ("name", "n"), [("a", "1"), ("bcdefg", "1,234")], "note")
    ).splitlines()
    assert lines == ["Title", "name        n", "-------------", "a           1", "bcdefg  1,234", "note"]


def test_kernels_are_summed_over_a_layer(report: document.Report) -> None:
    found = {(s.model, s.format): s for s in kernels.sums(kernels.points(report.parts["kernels"]))}
    total = found["SmolLM2-135M", "Q4_1"]
    parts = [
        point
        for point in kernels.points(report.parts["kernels"])
        if point.format == "Q4_1" and point.rows == 1 and point.op in ("qkv", "o", "gate_up", "down", "head")
    ]
    assert len(parts) == 5
    assert total.seconds[1] == pytest.approx(sum(point.seconds for point in parts))
    assert min(p.share for p in parts if p.share) < total.share < max(p.share for p in parts if p.share)


def test_close_roofs_share_a_line() -> None:
    assert plots._grouped({"a": 100.0, "b": 40.0, "c": 110.0}) == [
        (40.0, 40.0, ["b"]),
        (100.0, 110.0, ["a", "c"]),
    ]


class Reader(HTMLParser):
    """Collects images and checks that elements close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.images: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        named = dict(attributes)
        if tag == "img":
            self.images.append(named["src"] or "")
        elif tag != "meta":
            self.open.append(tag)
        self.outside += [str(named[key]) for key in ("href", "src") if key in named]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_html_is_one_file_with_its_plots(report: document.Report) -> None:
    pytest.importorskip("matplotlib")
    reader = Reader()
    reader.feed(document.as_html(report))
    assert reader.open == []
    assert len(reader.images) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.outside)
    for source in reader.images:
        root = ElementTree.fromstring(base64.b64decode(source.partition(",")[2]))
        assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_the_same_run_gives_the_same_file(report: document.Report) -> None:
    pytest.importorskip("matplotlib")
    assert document.as_html(report) == document.as_html(document.load(RECORDED))


def test_names_cannot_break_the_html(report: document.Report) -> None:
    pytest.importorskip("matplotlib")
    report.machine["processor"] = "<script>&"
    report.parts.clear()
    report.parts["speed"] = {"error": "<b>"}
    page = document.as_html(report)
    assert "&lt;script&gt;&amp;" in page
    assert "failed: &lt;b&gt;" in page
    assert "<script>" not in page


def test_parts_without_result_have_a_reason(report: document.Report) -> None:
    report.parts["kernels"] = {"left_out": "no pytest"}
    report.parts["batch"] = {"error": "broken"}
    assert document.reason(report.parts["kernels"]) == "left out: no pytest"
    assert document.reason(report.parts["batch"]) == "failed: broken"
    assert document.reason(report.parts["rows"]) is None
    titles = " ".join(table.title for table in report.tables())
    assert "Kernels" not in titles
    assert "together" not in titles


def test_a_folder_of_results_is_a_report(tmp_path: Path, report: document.Report) -> None:
    for name, part in (("rows", "rows"), ("speed-bf16", "speed"), ("speed", "speed")):
        (tmp_path / f"{name}.json").write_text(json.dumps({"machine": {"python": "3"}, **report.parts[part]}))
    found = document.load(tmp_path)
    assert list(found.parts) == ["speed", "speed-bf16", "rows"]
    assert found.machine == {"python": "3"}
    assert "machine" not in found.parts["speed"]


@pytest.mark.parametrize(
    ("content", "match"),
    [("{", "JSON"), ("[]", "list"), ('{"what": 1}', "no parts"), ('{"parts": 3}', "no parts")],
)
def test_files_that_are_no_run_are_refused(tmp_path: Path, content: str, match: str) -> None:
    path = tmp_path / "run.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=match):
        document.load(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        document.load(tmp_path / "missing.json")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigurationError, match="no results"):
        document.load(empty)


def test_a_result_of_another_version_is_refused_by_name(report: document.Report) -> None:
    old: dict[str, Any] = {key: value for key, value in report.parts["speed"].items() if key != "contenders"}
    with pytest.raises(ConfigurationError, match=r"speed.*'contenders'.*measure it again"):
        tables.of("speed", old)


def test_without_matplotlib_there_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendUnavailableError, match=re.escape("specee[bench]")):
        document.check_plots()
