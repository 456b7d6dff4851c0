"""A CUDA backend whose launches are written down instead of run, and steps of it."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

from torch.overrides import TorchFunctionMode

from specee.backends.cuda import CudaBackend
from tests.random_model import SHAPES, random_model

CONFIG = SHAPES["tiles"]


@dataclass
class Watching(TorchFunctionMode):
    """Names of all that is asked of torch, in order with the launches, which it is told of."""

    seen: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(function.__name__)
        return function(*args, **(kwargs or {}))


@dataclass
class Recorder:
    """A launcher that runs nothing: what would be launched, and with what."""

    launches: list[tuple[str, tuple[int, int, int], int, list[Any]]] = field(default_factory=list)
    watching: Watching | None = None

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Seq[Any]) -> None:
        self.launches.append((kernel, grid, threads, list(arguments)))
        if self.watching is not None:
            self.watching.seen.append(f"launch {kernel}")

    @property
    def names(self) -> list[str]:
        return [launch[0] for launch in self.launches]


def recorded(rows: int, weights: str = "bf16") -> tuple[CudaBackend, Recorder, Any]:
    """One step of a sequence with four positions: rows to the last layer."""
    recorder = Recorder()
    model = random_model(CONFIG, seed=1, kind=weights)
    backend = CudaBackend(CONFIG, model.slabs(), weights, device="cpu", launcher=recorder)  # type: ignore[arg-type]
    sequence = backend.sequence(100)
    backend.advance([(sequence, sequence.append([1, 2, 3, 4]))], CONFIG.num_layers)
    recorder.launches.clear()
    recorder.watching = Watching()
    work = [(sequence, sequence.append(range(rows)))]
    with recorder.watching:
        backend.advance(work, CONFIG.num_layers)
    return backend, recorder, sequence


def small(**changes: Any) -> CudaBackend:
    model = random_model(CONFIG, seed=1, kind="bf16")
    arguments: dict[str, Any] = {"device": "cpu", "launcher": Recorder()} | changes
    return CudaBackend(CONFIG, model.slabs(), "bf16", **arguments)
