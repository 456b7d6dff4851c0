"""Names of contenders, and what happens to those that cannot run here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from specee.bench.decode import contenders
from specee.bench.decode.llama_peer import gguf_path
from specee.bench.decode.transformers_peer import LOOKUP_TOKENS, Method
from specee.errors import BackendUnavailableError, ConfigurationError


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([], Method()),
        (["plain", "fp32"], Method(weights="fp32")),
        (["fp32", "lookup"], Method("lookup", weights="fp32")),
        (["early-exit"], Method("early-exit")),
        (["early-exit", "4", "bf16"], Method("early-exit", 4)),
        (["cuda", "static"], Method("static", device="cuda")),
        (["fp32", "cuda"], Method(weights="fp32", device="cuda")),
    ],
)
def test_methods_of_transformers(parts: list[str], wanted: Method) -> None:
    assert Method.parse("name", parts) == wanted


@pytest.mark.parametrize(
    "parts",
    [
        ["int8"],
        ["4"],
        ["lookup", "4"],
        ["early-exit", "0"],
        ["lookup", "early-exit"],
        ["plain", "plain"],
        ["cuda", "cuda"],
    ],
)
def test_methods_that_mean_nothing_are_refused(parts: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=":lookup"):
        Method.parse("transformers:odd", parts)


def test_what_generate_is_told() -> None:
    assert Method().arguments(30) == {}
    assert Method("static").arguments(30) == {"cache_implementation": "static"}
    assert Method("lookup").arguments(30) == {"prompt_lookup_num_tokens": LOOKUP_TOKENS}
    assert Method("early-exit").arguments(30) == {"assistant_early_exit": 15}
    assert Method("early-exit", 29).arguments(30) == {"assistant_early_exit": 29}
    with pytest.raises(ConfigurationError, match=r"1\.\.29"):
        Method("early-exit", 30).arguments(30)


@pytest.mark.parametrize(
    ("parts", "wanted"),
    [
        ([], ("auto", "autoregressive", "cpu")),
        (["bf16"], ("bf16", "autoregressive", "cpu")),
        (["prompt-lookup", "int8"], ("int8", "prompt-lookup", "cpu")),
        (["cuda"], ("bf16", "autoregressive", "cuda")),
        (["cuda", "auto"], ("bf16", "auto", "cuda")),
        (["auto"], ("auto", "autoregressive", "cpu")),
        (["int4", "auto", "cuda"], ("int4", "auto", "cuda")),
        (
            ["packed", "layerskip", "exit_layer=27,speculation_length=2"],
            ("packed", "layerskip:exit_layer=27,speculation_length=2", "cpu"),
        ),
        (
            ["threshold", "exit_layer=9", "target=0.8", "fp32"],
            ("fp32", "threshold:exit_layer=9,target=0.8", "cpu"),
        ),
    ],
)
def test_settings_belong_to_the_policy_before_them(parts: list[str], wanted: tuple[str, ...]) -> None:
    assert contenders._ours_parts("name", parts) == wanted


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("magic", "llama.cpp"),
        ("specee:q4", "packed"),
        ("specee:bf16:packed", "once"),
        ("specee:cuda:bf16:cuda", "each of device, weights"),
        ("specee:cuda:packed", "cuda, bf16, int8, int4"),
        ("specee:layerskip:threshold", "once"),
        ("specee:exit_layer=3", "after a policy's name"),
        ("specee:layerskip:exit=3", "exit_layer"),
        ("specee:layerskip:exit_layer=0", "1 or more"),
        ("specee:packed:magic", "autoregressive"),
        ("llama.cpp:bf16", "no parts"),
        ("transformers:magic", ":lookup"),
    ],
)
def test_names_that_mean_nothing_are_refused_with_what_is_allowed(name: str, match: str) -> None:
    with pytest.raises(ConfigurationError, match=match) as caught:
        contenders.check(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [
        ("llama.cpp", "llama_cpp", "specee[peers]"),
        ("transformers:lookup", "transformers", "specee[hf]"),
        ("specee", "specee._cpu", "missing"),
        ("transformers:cuda", "transformers", "specee[hf]"),
    ],
)
def test_a_missing_package_is_a_reason_not_a_crash(
    name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendUnavailableError) as caught:
        contenders.check(name)
    assert extra in str(caught.value)
    good, missing = contenders.usable((name,))
    assert good == []
    assert extra in missing[name]


@pytest.mark.parametrize("name", ["specee:cuda:drafter", "transformers:cuda:static"])
def test_a_machine_without_a_device_is_a_reason(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    good, missing = contenders.usable((name,))
    assert good == []
    assert "cuda" in missing[name]


def test_a_wrong_name_is_an_error_even_among_usable_ones() -> None:
    with pytest.raises(ConfigurationError, match="magic"):
        contenders.usable(("magic",))


def test_llama_needs_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="leave llama"):
        gguf_path(str(tmp_path))
