"""Which kernels are used: compiled ones, else those of NVRTC, else none, with the reasons."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from specee import cuda
from specee.cli import info
from specee.cuda import arrays
from specee.errors import BackendUnavailableError, ConfigurationError


class FakeCuda(ModuleType):
    def __init__(self, count: int) -> None:
        super().__init__("specee._cuda")
        self.count = count
        self.launched: list[Any] = []

    def device_count(self) -> tuple[int, str]:
        return self.count, "" if self.count else "no driver"

    def launch(self, *arguments: Any) -> None:
        self.launched.append(arguments)


class FakeCupy(ModuleType):
    """As much of CuPy as is asked before kernels are launched."""

    def __init__(self, count: int) -> None:
        super().__init__("cupy")

        class CUDARuntimeError(Exception):
            pass

        def devices() -> int:
            if count < 0:
                raise CUDARuntimeError("cudaErrorInsufficientDriver")
            return count

        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDeviceCount=devices, CUDARuntimeError=CUDARuntimeError)
        )
        self.RawModule = SimpleNamespace


def set_up(monkeypatch: pytest.MonkeyPatch, compiled: int | None, nvrtc: int | None) -> FakeCuda:
    """Devices that each way finds; None for a module that is not installed."""
    fake = FakeCuda(compiled or 0)
    import specee

    monkeypatch.setitem(sys.modules, "specee._cuda", None if compiled is None else fake)
    monkeypatch.setattr(specee, "_cuda", fake, raising=False)
    monkeypatch.setitem(sys.modules, "cupy", None if nvrtc is None else FakeCupy(nvrtc))
    for name in ("compiled", "nvrtc"):
        monkeypatch.delitem(sys.modules, f"specee.cuda.{name}", raising=False)
    return fake


def test_compiled_kernels_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = set_up(monkeypatch, 1, 1)
    chosen = cuda.choose()
    assert chosen.how == "compiled"
    x = np.zeros(3, np.float32)
    chosen.launcher.launch("round_rows", (1, 2, 3), 256, [None, x, np.int32(3)])
    ((kernel, grid, threads, arguments, device, stream),) = fake.launched
    assert (kernel, grid, threads, device, stream) == ("round_rows", (1, 2, 3), 256, 0, 0)
    assert arguments[1] is x
    tensor = SimpleNamespace(is_cuda=True, data_ptr=lambda: 0x7000, device=SimpleNamespace(index=1))
    chosen.launcher.launch("round_rows", (1, 2, 3), 256, [tensor, x, np.int32(3)])
    assert fake.launched[1][3] == [0x7000, x, 3]
    assert fake.launched[1][4] == 1, "the device of the tensor"


def test_nvrtc_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    for compiled in (None, 0):
        set_up(monkeypatch, compiled, 2)
        chosen = cuda.choose()
        assert chosen.how == "nvrtc"
        module = chosen.launcher._module
        assert "kernels.cuh" in module.code
        assert "--fmad=false" in module.options


@pytest.mark.parametrize(
    ("compiled", "nvrtc", "reasons"),
    [
        (None, None, ["specee._cuda cannot be imported", "nvcc", "cupy cannot be imported", "specee[cuda]"]),
        (0, 0, ["no driver", "cupy finds no device"]),
        (0, -1, ["no driver", "cudaErrorInsufficientDriver"]),
    ],
)
def test_reasons_are_given_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, compiled: int | None, nvrtc: int | None, reasons: list[str]
) -> None:
    set_up(monkeypatch, compiled, nvrtc)
    with pytest.raises(BackendUnavailableError) as caught:
        cuda.choose()
    line = info._cuda_kernels()
    assert line.startswith("missing: ")
    for reason in reasons:
        assert reason in str(caught.value)
        assert reason in line


def test_graphs_get_kernels_by_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = set_up(monkeypatch, 1, 1)
    fake.function = lambda kernel, device: {"round_rows": 16}[kernel] + device  # type: ignore[attr-defined]
    assert cuda.choose().launcher.function("round_rows", 1) == 17  # type: ignore[attr-defined]
    set_up(monkeypatch, None, 1)
    current: list[int] = []

    @contextmanager
    def on(device: int) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def kernel(name: str) -> SimpleNamespace:
        return SimpleNamespace(kernel=SimpleNamespace(ptr={"round_rows": 32}[name] + current[-1]))

    launcher: Any = cuda.choose().launcher
    launcher._module.get_function = kernel
    sys.modules["cupy"].cuda.Device = on
    assert launcher.function("round_rows", 2) == 34
    assert current == []


def test_info_says_whether_there_are_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    for reason, said in ((None, "available"), ("no driver", "missing: no driver")):
        monkeypatch.setattr(info.graph, "missing", lambda reason=reason: reason)
        assert ("graphs cuda", said) in list(info._backends())


def test_info_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(monkeypatch, 1, None)
    assert info._cuda_kernels() == "compiled (specee._cuda)"
    set_up(monkeypatch, 0, 1)
    assert info._cuda_kernels().startswith("nvrtc (specee._cuda finds no device")


class OnDevice:
    """An array that says where it is."""

    def __init__(self, at: int, shape: tuple[int, ...] = (4, 8)) -> None:
        self.shape, self.dtype = shape, np.dtype(np.uint16)
        self.flags = SimpleNamespace(c_contiguous=True)
        self.__cuda_array_interface__ = {"data": (at, False)}


def test_what_does_not_fit_is_refused() -> None:
    assert arrays.checked("x", OnDevice(0x1000), "bfloat16", (None, 8)) == (4, 8)
    with pytest.raises(ConfigurationError, match=r"x begins at 0x1002: allowed are multiples of 16"):
        arrays.checked("x", OnDevice(0x1002), "bfloat16", (None, 8))
    with pytest.raises(
        ConfigurationError, match=r"x is uint16 of shape \(4, 8\).*float32 of shape \(any, 8\)"
    ):
        arrays.checked("x", OnDevice(0x1000), "float32", (None, 8))
    with pytest.raises(ConfigurationError, match=r"not contiguous"):
        arrays.checked("x", np.zeros((4, 8), np.float32).T, "float32", (8, 4))
    with pytest.raises(ConfigurationError, match=r"shape \(4, 9\)"):
        arrays.checked("x", OnDevice(0x1000), "bfloat16", (4, 9))


def test_arrays_of_torch_are_read() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.zeros((2, 64), dtype=torch.bfloat16)
    assert arrays.view(tensor) == ((2, 64), "bfloat16", True)
    assert arrays.address(tensor) == tensor.data_ptr()
    assert not arrays.view(tensor.T).contiguous


def test_the_compiled_module_refuses_what_it_cannot_launch() -> None:
    module = pytest.importorskip("specee._cuda", reason="specee._cuda was not built (no nvcc)")
    with pytest.raises(ConfigurationError, match="kernel 'nothing' is unknown"):
        module.launch("nothing", (1, 1, 1), 32, [], 0, 0)
    with pytest.raises(ConfigurationError, match="takes 3 arguments, and there are 1"):
        module.launch("round_rows", (1, 1, 1), 32, [1], 0, 0)
    with pytest.raises(ConfigurationError, match=r"type str is no array.*__cuda_array_interface__"):
        module.launch("round_rows", (1, 1, 1), 32, ["x", None, 1], 0, 0)
    with pytest.raises(ConfigurationError, match="DLPack device type 1: kernels take arrays of CUDA devices"):
        module.launch("round_rows", (1, 1, 1), 32, [np.zeros(3, np.float32), None, 1], 0, 0)
    with pytest.raises((TypeError, RuntimeError, ValueError)):
        module.launch("round_rows", (1, 1, 1), 32, [None, OnDevice(0x1000), "three"], 0, 0)


def test_the_compiled_module_has_every_kernel() -> None:
    module = pytest.importorskip("specee._cuda", reason="specee._cuda was not built (no nvcc)")
    from tests.cuda.test_compile import listed

    assert sorted(module.kernels()) == sorted(listed())
