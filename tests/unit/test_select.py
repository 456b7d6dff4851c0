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
    with pytest.raises(ConfigurationError, match=r"backend='gpu'.*reference, cpu"):
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


def test_cuda_runs_on_the_reference_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert choose("cuda:0") == "reference"
    with pytest.raises(ConfigurationError, match="backend='cpu'"):
        choose("cuda", "cpu")
