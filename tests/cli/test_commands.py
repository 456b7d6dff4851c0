"""The ``specee`` command on a tiny model, in process and as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import specee
from specee.backends import missing
from specee.cli import main
from specee.cli.generate import report
from specee.engine import Request, Statistics
from tests.tiny_models import tiny_folder

SHORT = ["--max-new-tokens", "6"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1))


@pytest.fixture(autouse=True)
def reference_if_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands work with any backend; without the extension they are tested on the other one."""
    monkeypatch.setattr("specee.cli.bandwidth._SWEEP_BYTES", 1 << 20)
    if os.environ.get("SPECEE_REQUIRE_CPU") != "1" and missing("cpu") is not None:
        monkeypatch.setenv("SPECEE_BACKEND", "reference")


def test_generate_streams_text_and_reports_speed(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "The quick", "--model", folder, *SHORT]) == 0
    out, err = capsys.readouterr()
    assert out == specee.load(folder).generate_text("The quick", max_new_tokens=6) + "\n"
    assert "prompt" in err
    assert "tokens/s" in err


def test_generate_raw_reads_standard_input(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("The quick"))
    assert main(["generate", "-", "--raw", "--model", folder, *SHORT]) == 0
    wanted = specee.load(folder).generate_text("The quick", raw=True, max_new_tokens=6)
    assert capsys.readouterr().out == wanted + "\n"


def test_sampling_is_seeded(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        arguments = ["generate", "a", "--model", folder, "--max-new-tokens", "20", "--temperature", "1.5"]
        assert main([*arguments, "--seed", seed]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] != texts[2]


def test_compare_runs_both(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "The quick", "--model", folder, "--compare", *SHORT]) == 0
    err = capsys.readouterr().err
    assert "transformers" in err
    assert "ratio" in err
    assert "texts          equal" in err


def test_compare_does_not_compare_sampled_texts(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "The quick", "--model", folder, "--compare", "--temperature", "1", *SHORT]
    assert main(arguments) == 0
    assert "not compared" in capsys.readouterr().err


def test_compare_names_the_first_difference() -> None:
    from specee.cli.compare import first_difference

    assert first_difference([1, 2, 3], [1, 2, 3]) is None
    assert first_difference([1, 2, 3], [1, 9, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2


def test_chat_answers_keeps_the_cache_and_resets(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["The quick", "/what", "again", "/reset", "The quick", "", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    reused = []
    original = specee.Chat.answer

    def answer(self: specee.Chat, *arguments: object) -> object:
        generation = original(self, *arguments)  # type: ignore[arg-type]
        reused.append(self.reused)
        return generation

    monkeypatch.setattr(specee.Chat, "answer", answer)
    assert main(["chat", "--model", folder, *SHORT]) == 0
    out, err = capsys.readouterr()
    assert len(reused) == 3
    assert reused[0] == reused[2] == 0 < reused[1]
    first = specee.load(folder).generate_text("The quick", max_new_tokens=6)
    assert out.startswith(first + "\n")
    assert out.endswith(first + "\n")
    assert "/what is not a command" in err


def test_chat_stops_an_answer_not_the_program(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = iter(["The quick", "again", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    calls = []
    original = specee.Generation.step

    def step(self: specee.Generation) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self)

    monkeypatch.setattr(specee.Generation, "step", step)
    assert main(["chat", "--model", folder, *SHORT]) == 0
    err = capsys.readouterr().err
    assert "(stopped)" in err
    assert len(calls) > 3


def test_chat_ends_with_the_input(
    folder: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(_: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    assert main(["chat", "--model", folder]) == 0


def test_info_tells_what_is_here(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SPECEE_CACHE", str(tmp_path))
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for word in (
        specee.__version__,
        "backend reference",
        "backend cpu",
        "threads",
        "GB/s",
        "torch",
        "not fetched",
    ):
        assert word in out


def test_info_says_why_something_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "specee._cpu", None)
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert out.count("missing: ") >= 3
    assert "specee[hf]" in out


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["generate", "x", "--model", "/does/not/exist"], "/does/not/exist"),
        (["generate", "x", "--temperature", "-1"], "temperature"),
        (["generate", "x", "--policy", "magic"], "autoregressive"),
        (["generate", "x", "--max-new-tokens", "100000"], "context"),
        (["generate", "x", "--threads", "0"], "threads"),
        (["generate", "x", "--device", "tpu"], "cuda"),
        (["generate", "x", "--min-p", "2"], "min_p"),
        (["generate", "x", "--repetition-penalty", "0"], "repetition_penalty"),
        (["generate", "x", "--stop", ""], "stop_strings"),
        (["generate", "x", "--policy", "layerskip:exit_layer=99"], "exit_layer=99"),
        (["generate", "x", "--policy", "layerskip:depth=1"], "speculation_length"),
    ],
)
def test_errors_are_one_line_and_code_2(
    folder: str, arguments: list[str], match: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [] if "--model" in arguments else ["--model", folder]
    assert main([*arguments, *where]) == 2
    err = capsys.readouterr().err
    assert err.startswith("specee: error: ")
    assert err.count("\n") == 1
    assert match in err


def test_unknown_isa_is_an_error_that_lists_the_possible(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    monkeypatch.setenv("SPECEE_FORCE_ISA", "neon9")
    assert main(["info"]) == 2
    assert "portable" in capsys.readouterr().err


def test_interrupt_gives_code_130(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(self: specee.Generation) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(specee.Generation, "step", step)
    assert main(["generate", "x", "--model", folder]) == 130


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "specee", *arguments]


def environment() -> dict[str, str]:
    """This process's, with the package where this process found it."""
    return {**os.environ, "PYTHONPATH": str(Path(specee.__file__).parent.parent)}


def test_a_closed_pipe_is_no_traceback(folder: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        program("generate", "The quick", "--model", folder, *SHORT),
        stdout=writing, stderr=subprocess.PIPE, text=True, env=environment(), check=False,
    )  # fmt: skip
    os.close(writing)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_a_running_program(folder: str) -> None:
    """A real SIGINT while it streams: code 130 and no traceback."""
    arguments = program("generate", "The quick", "--raw", "--model", folder, "--max-new-tokens", "450")
    code = (
        "import sys, signal, os; from specee.cli import main; from specee.engine import Generation\n"
        "step = Generation.step\n"
        "def slow(self):\n"
        "    if self.steps == 1: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return step(self)\n"
        "Generation.step = slow\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments[3:]],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_the_core_needs_neither_torch_nor_transformers(folder: str) -> None:
    if reason := missing("cpu"):
        pytest.skip(reason)
    code = (
        "import sys; from specee.cli import main; code = main(sys.argv[1:])\n"
        "assert not {'torch', 'transformers'} & set(sys.modules), 'imported'\n"
        "sys.exit(code)"
    )
    arguments = ["generate", "The quick", "--model", folder, *SHORT]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("arguments", "warned"), [(["--seed", "3"], True), (["--temperature", "0"], False)])
def test_options_without_effect_are_mentioned(
    folder: str, arguments: list[str], warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "x", "--model", folder, *SHORT, *arguments]) == 0
    assert ("no effect" in capsys.readouterr().err) is warned


def test_the_report_counts_what_was_computed(capsys: pytest.CaptureFixture[str]) -> None:
    """Prompt tokens that the cache held already took no time, and must not make the speed look better."""
    request = Request(tuple(range(60)), 1)
    sequence = SimpleNamespace(generated=[7], request=request)
    timing = SimpleNamespace(prompt=0.5, decode=0.0)
    generation = SimpleNamespace(sequences={0: sequence}, timing=timing, steps=1, statistics=Statistics())
    report(SimpleNamespace(backend=None), generation, kept=40)
    assert "20 tokens, 40.0 tokens/s (40 more kept from before)" in capsys.readouterr().err
