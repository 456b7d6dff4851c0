"""Options of ``generate`` and ``chat`` that say how to decode and what to tell of it."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

import pytest

import specee
from specee.backends import missing
from specee.cli import main
from specee.cli.arguments import build_parser
from specee.cli.common import decoding
from specee.policies import policy_names
from tests.tiny_models import tiny_folder

SHORT = ["--max-new-tokens", "24"]
DRAFTING = ["--policy", "layerskip:exit_layer=1,speculation_length=3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1))


@pytest.fixture(autouse=True)
def reference_if_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands work with any backend; without the extension they are tested on the other one."""
    monkeypatch.setattr("specee.cli.bandwidth._SWEEP_BYTES", 1 << 20)
    if os.environ.get("SPECEE_REQUIRE_CPU") != "1" and missing("cpu") is not None:
        monkeypatch.setenv("SPECEE_BACKEND", "reference")


def parsed(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(["generate", "x", *arguments])


def generated(capsys: pytest.CaptureFixture[str], folder: str, *arguments: str) -> tuple[str, str]:
    """Text and what was said beside it."""
    assert main(["generate", "The quick", "--model", folder, *SHORT, *arguments]) == 0
    out, err = capsys.readouterr()
    return out, err


def test_only_what_was_given_is_passed_on() -> None:
    assert decoding(parsed()) == {"max_new_tokens": 256, "do_sample": False}
    assert decoding(parsed("--repetition-penalty", "1.2", "--stop", "a", "--stop", "\n")) == {
        "max_new_tokens": 256,
        "do_sample": False,
        "repetition_penalty": 1.2,
        "stop_strings": ["a", "\n"],
    }


@pytest.mark.parametrize(
    ("arguments", "sampled"),
    [
        (["--min-p", "0.1"], True), (["--top-k", "3"], True), (["--top-p", "0.5"], True),
        (["--temperature", "1"], True), (["--temperature", "0", "--min-p", "0.1"], False),
        (["--acceptance", "rejection"], False), (["--repetition-penalty", "2"], False),
        (["--seed", "1"], False),
    ],
)  # fmt: skip
def test_what_filters_tokens_samples(arguments: list[str], sampled: bool) -> None:
    given = decoding(parsed(*arguments))
    assert given["do_sample"] is sampled
    assert len(given) == 2 + len(arguments) // 2


def test_the_help_names_every_policy(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["generate", "--help"])
    whole = re.sub(r"-\n\s+", "-", capsys.readouterr().out)  # lines break at hyphens too
    words = whole.replace(",", " ").split()
    assert set(policy_names()) <= set(words)


def test_unknown_acceptance_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["generate", "x", "--acceptance", "typical"])
    assert raised.value.code == 2
    assert "rejection" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "loaded"),
    [
        (["generate", "x"], None),
        (["generate", "x", "--speculator", "adapters.safetensors"], "adapters.safetensors"),
        (["generate", "x", "--speculator", "none"], False),
        (["fit", "--output", "made.safetensors"], False),
    ],
)
def test_the_speculator_that_is_loaded(
    given: list[str], loaded: object, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)

    class LoadedError(Exception):
        pass

    said: dict[str, object] = {}

    def load(source: object, **options: object) -> None:
        said.update(options)
        raise LoadedError

    monkeypatch.setattr(specee, "load", load)
    with pytest.raises(LoadedError):
        main(given)
    assert said["speculator"] is loaded or said["speculator"] == loaded
    assert type(said["speculator"]) is type(loaded)


def test_fit_makes_a_speculator_and_takes_none(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["fit", "--output", "made.safetensors", "--speculator", "other.safetensors"])
    assert "--speculator" in capsys.readouterr().err


@pytest.mark.parametrize(
    "policy", ["layerskip:exit_layer=2,speculation_length=2", "prompt-lookup", "threshold"]
)
def test_policies_change_nothing_of_the_text(
    folder: str, policy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = generated(capsys, folder)
    assert generated(capsys, folder, "--policy", policy)[0] == plain


def test_the_penalty_changes_greedy_text(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain, _ = generated(capsys, folder)
    penalised, said = generated(capsys, folder, "--repetition-penalty", "5")
    assert penalised != plain
    assert "no effect" not in said


def two_letters(text: str) -> str:
    """The first ones beside each other, in a text of random bytes."""
    found = re.search("[ -~]{2}", text)
    assert found is not None
    return found[0]


def test_a_stop_string_ends_the_text(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain = generated(capsys, folder)[0].rstrip("\n")
    stop = two_letters(plain)
    stopped = generated(capsys, folder, "--stop", "never there", "--stop", stop)[0].rstrip("\n")
    assert stop in stopped
    assert len(stopped) < len(plain)
    assert plain.startswith(stopped)


def test_statistics_are_told_if_asked_for(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    plain, said = generated(capsys, folder, *DRAFTING)
    assert "accepted" not in said
    text, said = generated(capsys, folder, *DRAFTING, "--stats")
    assert text == plain
    assert "tokens/s" in said
    assert "exit layer 1" in said
    assert "layers  1 throughout" in said
    assert "Python" in said


def test_bandwidth_is_told_of_plain_decoding_alone(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A token that was drafted did not cost one reading of the weights."""
    if reason := missing("cpu"):
        pytest.skip(reason)
    assert "memory bandwidth" in generated(capsys, folder)[1]
    assert "memory bandwidth" not in generated(capsys, folder, *DRAFTING)[1]


def test_chat_tells_them_after_each_answer(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["The quick", "again", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    assert main(["chat", "--model", folder, *SHORT, *DRAFTING, "--stats"]) == 0
    assert capsys.readouterr().err.count("steps   ") == 2


def test_a_trace_is_written(folder: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    generated(capsys, folder, *DRAFTING, "--trace", str(path))
    html = path.read_text(encoding="utf-8")
    assert html.count('<span class="t ') == 24
    assert "layerskip:exit_layer=1,speculation_length=3" in html
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_generation_is_traced_as_far_as_it_came(
    folder: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    step = specee.Generation.step

    def interrupted(self: specee.Generation) -> object:
        if self.steps == 1:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(specee.Generation, "step", interrupted)
    path = tmp_path / "page.html"
    assert main(["generate", "The quick", "--model", folder, *SHORT, "--trace", str(path)]) == 130
    assert path.read_text(encoding="utf-8").count('<span class="t ') == 1


def test_a_trace_that_cannot_be_written_is_refused_before_the_model_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(specee, "load", load)
    path = tmp_path / "missing" / "page.html"
    assert main(["generate", "x", "--trace", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("specee: error: ")
    assert err.count("\n") == 1
    assert str(path) in err


@pytest.mark.parametrize(
    "arguments",
    [DRAFTING, ["--policy", "prompt-lookup", "--repetition-penalty", "1.5"], ["--min-p", "0.2"]],
)
def test_compare_works_with_policies_and_options(
    folder: str, arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    said = generated(capsys, folder, "--compare", "--stats", "--trace", str(path), *arguments)[1]
    assert ("not compared" if "--min-p" in arguments else "texts          equal, 24 tokens") in said
    assert "steps   " in said
    assert path.is_file()


def test_compare_stops_both_at_the_same_token(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    stop = two_letters(generated(capsys, folder)[0])
    said = generated(capsys, folder, "--compare", "--stop", stop)[1]
    agreed = next(line for line in said.splitlines() if line.startswith("texts"))
    assert "equal" in agreed
    assert int(agreed.split()[2]) < 24
