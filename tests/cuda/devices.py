"""What the tests of kernels run on: the emulator always, a device by both ways where there is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from specee.cuda.launcher import Launcher


class Device(Protocol):
    """Arrays to and from where kernels run."""

    name: str
    launcher: Launcher

    def put(self, array: np.ndarray) -> Any:
        """A copy for kernels. bf16 is uint16."""

    def get(self, array: Any) -> np.ndarray:
        """A copy for the test, after all kernels have run."""


@dataclass
class Emulated:
    launcher: Launcher
    name: str = "emulated"

    def put(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, order="C", copy=True)

    def get(self, array: np.ndarray) -> np.ndarray:
        return array.copy()


@dataclass
class Torch:
    """Compiled kernels on torch tensors."""

    launcher: Launcher
    name: str = "compiled"

    def put(self, array: np.ndarray) -> Any:
        import torch

        return torch.from_numpy(np.array(array, order="C", copy=True)).cuda()

    def get(self, array: Any) -> np.ndarray:
        found: np.ndarray = array.cpu().numpy()
        return found


@dataclass
class Cupy:
    """Kernels of NVRTC on CuPy arrays."""

    launcher: Launcher
    name: str = "nvrtc"

    def put(self, array: np.ndarray) -> Any:
        import cupy

        return cupy.array(array, order="C")

    def get(self, array: Any) -> np.ndarray:
        found: np.ndarray = array.get()
        return found
