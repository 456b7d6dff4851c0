"""Choosing a backend, and the reasons why one is missing."""

from __future__ import annotations

import sys

import pytest

from specee.backends import missing
from specee.backends.select import choose, cuda_missing
from specee.errors import BackendUnavailableError, ConfigurationError


def hide(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make modules fail to import, as if they were not installed."""
    for name in modules:
        monkeypatch.setitem(sys.modules, name, None)


def test_the_default_is_the_native_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.backends.select.missing", lambda name: None)
    assert choose() == "cpu"


def test_argument_beats_environment_beats_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specee.backends.select.missing", lambda name: None)
    monkeypatch.setenv("SPECEE_BACKEND", "reference")
    assert choose() == "reference"
    assert choose(backend="cpu") == "cpu"


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"backend='gpu'.*reference, cpu, cuda"):
        choose(backend="gpu")
    with pytest.raises(ConfigurationError, match=r"device='tpu'.*cuda"):
        choose("tpu")


def test_a_missing_extension_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "specee._cpu")
    assert "specee._cpu" in str(missing("cpu"))
    with pytest.raises(BackendUnavailableError, match="reinstall"):
        choose()


def test_missing_torch_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "torch")
    with pytest.raises(BackendUnavailableError, match=r"specee\[hf\]"):
        choose(backend="reference")
    assert "torch" in str(cuda_missing())


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BackendUnavailableError, match=r"device 'cuda'.*CUDA"):
        choose("cuda")


@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_device_has_a_backend_of_its_own(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("specee.cuda.missing", lambda way: None if way == "nvrtc" else "not built")
    assert missing("cuda") is None
    assert choose(device) == "cuda"
    assert choose(device, "reference") == "reference"
    with pytest.raises(ConfigurationError, match=rf"backend='cpu'.*device='{device}'"):
        choose(device, "cpu")


def test_kernels_that_cannot_be_had_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("specee.cuda.missing", lambda way: f"no {way} today")
    with pytest.raises(BackendUnavailableError) as caught:
        choose("cuda")
    for words in ("backend 'cuda'", "no compiled today; no nvrtc today", "backend='reference'"):
        assert words in str(caught.value)
    assert choose("cuda", "reference") == "reference"


def test_the_cuda_backend_needs_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^backend='cuda'.*device='cpu'"):
        choose("cpu", "cuda")
    monkeypatch.setenv("SPECEE_BACKEND", "cuda")
    with pytest.raises(ConfigurationError, match=r"^SPECEE_BACKEND='cuda'.*device='cpu'.*unset it") as caught:
        choose()
    assert "backend='cuda'" not in str(caught.value), "nobody gave it"
