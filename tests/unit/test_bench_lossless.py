"""The comparison with plain decoding: what it finds, what it resumes, and that it can fail."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import specee
from specee.backends import missing
from specee.bench.decode import lossless, resume
from specee.bench.decode.batches import chunks, padded
from specee.bench.decode.policy_check import check_policies, packaged_view
from specee.bench.decode.tally import first_difference
from specee.bench.progress import Meter
from specee.errors import ConfigurationError
from specee.models.checkpoint import open_checkpoint
from tests.tiny_models import tiny_folder

LAYERSKIP = "layerskip:exit_layer=3,speculation_length=2"
PROMPTS = 5
TOKENS = 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return str(tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1, num_hidden_layers=4))


@pytest.fixture
def measure(folder: str) -> Callable[..., dict[str, Any]]:
    def run(**options: Any) -> dict[str, Any]:
        common = {"weights": ["fp32"], "model": folder, "threads": 1, "tokens": TOKENS}
        return lossless.measure(**{**common, "most_prompts": PROMPTS, **options})

    return run


@pytest.fixture
def wrong_verification(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that gives another token after every row but the first of a sequence."""
    from specee.backends import plain_rounds
    from specee.backends.cpu import CpuBackend
    from specee.backends.plain_copies import CopiedText

    real = CpuBackend.verify

    def spoilt(self: Any, work: Any, sampling: Any) -> Any:
        tokens, *seconds = real(self, work, sampling)
        begin = 0
        for _, slots in work:
            for row in range(begin + 1, begin + len(slots)):
                tokens[row] = (tokens[row] + 1) % self.config.vocab_size
            begin += len(slots)
        return tokens, *seconds

    monkeypatch.setattr(CpuBackend, "verify", spoilt)
    monkeypatch.setattr(CpuBackend, "run_rounds", plain_rounds.run_rounds)
    monkeypatch.setattr(CpuBackend, "copies", lambda self, *lengths: CopiedText(*lengths))


def counted(monkeypatch: pytest.MonkeyPatch, stop_after: int | None = None) -> list[tuple[str, range]]:
    """Policies and prompts of every call from now on; Ctrl-C in place of the call after ``stop_after``."""
    calls: list[tuple[str, range]] = []
    real = lossless.continued

    def instead(model: Any, texts: Any, chosen: range, mode: str, policy: str, tokens: int) -> Any:
        if len(calls) == stop_after:
            raise KeyboardInterrupt
        calls.append((policy, chosen))
        return real(model, texts, chosen, mode, policy, tokens)

    monkeypatch.setattr(lossless, "continued", instead)
    return calls


@pytest.mark.parametrize(
    ("plain", "got", "wanted"),
    [
        ([1, 2, 3], (1, 2, 3), None),
        ([1, 2, 3], (1, 4, 3), {"position": 1, "plain": 2, "got": 4}),
        ([1, 2], (1, 2, 3), {"position": 2, "plain": None, "got": 3}),
        ([1, 2], (1,), {"position": 1, "plain": 2, "got": None}),
    ],
)
def test_the_first_difference(plain: list[int], got: tuple[int, ...], wanted: object) -> None:
    assert first_difference(plain, got) == wanted


def test_batches_are_padded_on_the_left() -> None:
    assert padded([[5], [6, 7]]) == ([[0, 5], [6, 7]], [[0, 1], [1, 1]])
    assert list(chunks(2, 7, 2)) == [range(2, 4), range(4, 6), range(6, 7)]


def test_the_default_exit_layer_is_nine_tenths_up() -> None:
    assert f"threshold:exit_layer={27}" in lossless.default_policies(30)
    assert "layerskip-adaptive:exit_layer=1" in lossless.default_policies(2)


def test_policies_give_the_tokens_of_plain_decoding(measure: Callable[..., dict[str, Any]]) -> None:
    """Plain decoding in batches of 8 is the reference, and itself compared one by one."""
    policies = ["autoregressive", *lossless.default_policies(4)]
    found = measure(policies=policies, batches=(1, 3))
    assert len(found["combinations"]) == 2 * 2 * len(policies)
    assert found["combinations_left"] == 0
    for one in found["combinations"]:
        assert one["differing"] == []
        assert one["prompts"] == PROMPTS
        assert PROMPTS < one["tokens"] <= PROMPTS * TOKENS
    by_policy = {one["policy"]: one for one in found["combinations"]}
    assert "acceptance" not in by_policy["autoregressive"]
    assert by_policy["autoregressive"]["tokens_per_round"] == 1.0
    assert 0 < by_policy[LAYERSKIP]["acceptance"] < 1 < by_policy[LAYERSKIP]["tokens_per_round"]
    assert lossless.verdict(found)[0] == 0


@pytest.mark.usefixtures("wrong_verification")
def test_a_wrong_backend_is_told_of_and_fails_the_run(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The negative control; plain decoding, which reads one row of a sequence, stays right."""
    state = tmp_path / "state.json"
    arguments = ["lossless", "--model", folder, "--weights", "fp32", "--threads", "1", "--batch", "3"]
    arguments += ["--tokens", str(TOKENS), "--most-prompts", str(PROMPTS), "--state", str(state)]
    arguments += ["--policy", LAYERSKIP, "--policy", "autoregressive"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as caught:
        lossless.main()
    assert caught.value.code == 1
    shown = capsys.readouterr()
    assert "Where texts part" in shown.out
    assert "not lossless: tokens differ in 2 combinations" in shown.err
    tallies = {
        (one["settings"]["mode"], one["settings"]["policy"]): one["tally"]["differing"]
        for one in json.loads(state.read_text())["tallies"]
    }
    assert set(tallies) == {
        (mode, p) for mode in ("greedy", "sampled") for p in (LAYERSKIP, "autoregressive")
    }
    for (_, policy), differing in tallies.items():
        assert bool(differing) == (policy == LAYERSKIP)
        for difference in differing:
            assert difference["plain"] != difference["got"]
            assert difference["position"] > 0
    with pytest.raises(SystemExit) as caught:  # what was found stays found
        lossless.main()
    assert caught.value.code == 1


def test_a_run_that_is_over_is_not_run_again(
    measure: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "folder" / "state.json"
    options = {"policies": ["prompt-lookup"], "batches": [2], "modes": ["greedy"], "state": state}
    found = measure(**options, minutes=0)
    assert (found["combinations"], found["combinations_left"]) == ([], 1)
    assert lossless.verdict(found)[0] == 3
    found = measure(**options)
    assert lossless.verdict(found)[0] == 0
    calls = counted(monkeypatch)
    measure(**{**options, "tokens": TOKENS - 1})
    assert len(calls) == 1 + 3  # another task; plain decoding, then batches of 2
    monkeypatch.setattr(specee, "load", None)
    assert measure(**options) == found


def test_a_run_goes_on_where_it_was_cut_short(
    measure: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "state.json"
    options: dict[str, Any] = {"policies": ["prompt-lookup"], "batches": [2], "modes": ["sampled"]}
    whole = measure(**options)
    with monkeypatch.context() as patch:
        counted(patch, stop_after=2)  # plain decoding and the first two prompts are done
        with pytest.raises(KeyboardInterrupt):
            measure(**options, state=state)
    calls = counted(monkeypatch)
    found = measure(**options, state=state)
    assert calls == [("prompt-lookup", range(2, 4)), ("prompt-lookup", range(4, 5))]
    for one in (*whole["combinations"], *found["combinations"]):
        del one["decode_tokens_s"]
    assert found == whole


def test_plain_decoding_is_computed_anew_by_other_code(
    measure: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"batches": [8], "modes": ["greedy"], "state": tmp_path / "state.json"}
    measure(**options, policies=["prompt-lookup"])
    calls = counted(monkeypatch)
    measure(**options, policies=["prompt-lookup", "autoregressive"])
    assert [policy for policy, _ in calls] == ["autoregressive"]
    monkeypatch.setattr(resume, "build", lambda: "other")
    measure(**options, policies=["prompt-lookup", LAYERSKIP])
    assert [policy for policy, _ in calls[1:]] == ["autoregressive", LAYERSKIP]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"tallies": [{}], "plain": [], "build": ""}'])
def test_a_file_that_is_no_state_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state.json"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=r"state\.json.*delete it"):
        resume.State(path)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tokens": 1}, "tokens=1"),
        ({"batches": [0]}, r"\[0\]"),
        ({"policies": ["layerskip:exit_layer=4"]}, r"1\.\.3"),
        ({"policies": ["magic"]}, "magic"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    measure: Callable[..., dict[str, Any]], options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        measure(**options)


def test_the_time_left_follows_the_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("specee.bench.progress.time.perf_counter", lambda: now)
    meter = Meter(10, "prompt")
    assert meter.left == "time left unknown"
    now = 130.0
    meter.advance(1)
    assert meter.left == "about 4 min left"
    meter.advance(8)
    assert meter.left == "about 3 s left"
    meter.advance(1)
    assert meter.left == "nothing left"
    meter.close()


@pytest.mark.model
def test_what_the_package_can_draft_with_is_compared() -> None:
    view = packaged_view(open_checkpoint())
    assert view.drafter is not None
    assert view.exits is not None
    check_policies(["specee", "drafter-tree", "auto"], open_checkpoint())
    able = lossless.default_policies(30, drafter=True, exits=True)
    fitted = {"drafter", "drafter-tree", "specee", "specee-tree"}
    assert fitted <= set(able)
    assert not fitted & set(lossless.default_policies(30))
