"""A module and its optimizer in a file, so that training goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from specee.errors import CheckpointError
from specee.whole_file import write_whole


def save(path: Path, of: str, module: nn.Module, optimizer: Optimizer, said: dict[str, Any]) -> None:
    """Write all that :func:`resume` needs; ``of``: what tells this run from others. Raises OSError."""
    from safetensors.torch import save as packed

    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        for part, value in state.items():
            tensors[f"optimizer.{index}.{part}"] = value
    metadata = {"of": of, **{name: json.dumps(value) for name, value in said.items()}}
    write_whole(path, packed({name: value.contiguous() for name, value in tensors.items()}, metadata))


def resume(path: Path, of: str, module: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Put everything back where it was; returns what was ``said``. Raises CheckpointError.

    An error is a damaged file, or one of another run.
    """
    import safetensors

    try:
        with safetensors.safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if said["of"] != of:
            raise ValueError(f"it is of another run: {said['of']}, and not {of}")
        own = {
            name.removeprefix("module."): value
            for name, value in tensors.items()
            if name.startswith("module.")
        }
        module.load_state_dict(own)
        optimizer.load_state_dict({**optimizer.state_dict(), "state": _optimizer_state(tensors)})
        return {name: json.loads(value) for name, value in said.items() if name != "of"}
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError, OSError) as error:
        raise CheckpointError(
            f"{path}: training cannot go on from it ({error}). Delete it to train anew."
        ) from error


def _optimizer_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, part = name.split(".", 2)
            found.setdefault(int(index), {})[part] = value
    return found
