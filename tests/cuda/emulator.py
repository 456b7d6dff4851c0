"""csrc/cuda on the host, threads of a block as fibers (tests/native/cuda), under sanitizers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "native" / "cuda"
FLAGS = [
    *("-std=c++17", "-O1", "-g1", "-ffp-contract=off", "-fno-omit-frame-pointer"),
    # As nvcc has it: kernels read vectors of numbers.
    "-fno-strict-aliasing",
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),  # pragmas are the device's
]


def compiler() -> list[str] | None:
    """The C++ compiler, or None without one."""
    command = shlex.split(os.environ.get("CXX", "g++"))
    return command if shutil.which(command[0]) else None


def build(work: Path, sources: Path = ROOT / "csrc", *, defines: Seq[str] = ()) -> Path:
    """Compile the emulator with the kernels of ``sources``; its path."""
    command = compiler()
    assert command is not None
    include = [f"-I{sources / 'include'}", f"-I{sources}"]

    def compile_one(name: str) -> Path:
        output = work / f"{name}.o"
        source = SOURCES / f"{name}.cpp"
        flags = [*FLAGS, *defines, *include]
        done = subprocess.run(
            [*command, *flags, "-c", source, "-o", output], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return output

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, ("block", "emulator")))
    program = work / "emulator"
    subprocess.run([*command, "-fsanitize=address,undefined", *objects, "-o", program], check=True)
    return program


class EmulatedError(AssertionError):
    """The emulator, or a sanitizer, found something wrong."""


class EmulatedLauncher:
    """Runs kernels on numpy arrays, in an order of threads and blocks that ``seed`` decides."""

    def __init__(self, program: Path, seed: int = 1) -> None:
        self._program = program
        self.seed = seed
        self.launched: set[str] = set()

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Seq[Any]) -> None:
        arrays: list[np.ndarray] = []
        lines = [_line(argument, arrays) for argument in arguments]
        head = [kernel, *grid, threads, self.seed, len(arguments), len(arrays)]
        text = "\n".join([" ".join(map(str, head)), *lines, " ".join(str(a.nbytes) for a in arrays)]) + "\n"
        with tempfile.TemporaryDirectory() as folder:
            request, answer = Path(folder, "request"), Path(folder, "answer")
            request.write_bytes(text.encode() + b"".join(a.tobytes() for a in arrays))
            done = subprocess.run(
                [self._program, request, answer], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:
                raise EmulatedError(f"{kernel}: {done.stdout[-2000:]}{done.stderr[-6000:]}")
            data, at = answer.read_bytes(), 0
        for array in arrays:
            array.reshape(-1).view(np.uint8)[:] = np.frombuffer(data, np.uint8, array.nbytes, at)
            at += array.nbytes
        self.launched.add(kernel)


def _line(argument: Any, arrays: list[np.ndarray]) -> str:
    if argument is None:
        return "p -1"
    if isinstance(argument, np.generic):
        kind = {"int32": "i", "int64": "l", "float32": "f"}[argument.dtype.name]
        return f"{kind} {float(argument).hex() if kind == 'f' else int(argument)}"
    known = next((i for i, array in enumerate(arrays) if array is argument), None)
    if known is None:
        known = len(arrays)
        arrays.append(argument)
    return f"p {known}"
