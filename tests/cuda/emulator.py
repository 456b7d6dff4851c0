"""csrc/cuda on the host, threads of a block as fibers (tests/native/cuda).

Under sanitizers in a process of its own, for the tests of single kernels; as a library, for whole models.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from collections.abc import Sequence as Seq
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "tests" / "native" / "cuda"
COMMON = [
    *("-std=c++17", "-ffp-contract=off"),
    # As nvcc has it: kernels read vectors of numbers.
    "-fno-strict-aliasing",
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),  # pragmas are the device's
]
FLAGS = [
    *(*COMMON, "-O1", "-g1", "-fno-omit-frame-pointer"),
    *("-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
]
LIBRARY_FLAGS = [*COMMON, "-O2", "-fPIC", "-shared", "-fvisibility=hidden"]


def fresh_seed(what: str) -> int:
    """A new seed each time, or SPECEE_TEST_SEED to repeat a failure."""
    given = os.environ.get("SPECEE_TEST_SEED")
    seed = int(given) if given else int(np.random.SeedSequence().generate_state(1)[0])
    print(f"{what}: SPECEE_TEST_SEED={seed}")
    return seed


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


@functools.cache
def library() -> ctypes.CDLL:
    """The emulator as a library, without sanitizers."""

    def make(path: Path) -> None:
        command = compiler()
        assert command is not None
        include = [f"-I{ROOT / 'csrc' / 'include'}", f"-I{ROOT / 'csrc'}"]
        sources = [SOURCES / "block.cpp", SOURCES / "library.cpp"]
        subprocess.run([*command, *LIBRARY_FLAGS, *include, *sources, "-o", path], check=True)

    return ctypes.CDLL(str(_built_once("library.so", make)))


@functools.cache
def program() -> Path:
    """The emulator under sanitizers."""

    def make(path: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            shutil.copy(build(Path(work)), path)

    return _built_once("program", make)


def _built_once(name: str, make: Callable[[Path], None]) -> Path:
    """What ``make`` makes of these sources, whatever process asks first; tests of several files share it."""
    folders = (SOURCES, ROOT / "csrc" / "cuda", ROOT / "csrc" / "include")
    files = [Path(__file__), *(p for folder in folders for p in folder.rglob("*") if p.is_file())]
    mark = hashlib.sha256(" ".join(compiler() or ()).encode())
    for path in sorted(files):
        mark.update(path.read_bytes())
    folder = Path(tempfile.gettempdir()) / f"specee-emulator-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder} belongs to somebody else")
    built = folder / f"{mark.hexdigest()[:16]}-{name}"
    if not built.exists():
        fresh = folder / f"{os.getpid()}-{name}"
        make(fresh)
        fresh.replace(built)  # whole or not at all
    return built


class LibraryLauncher:
    """Runs kernels where the arrays are, torch's on the host or numpy's: fast enough for whole models."""

    def __init__(self, seed: int = 1) -> None:
        self.seed = seed
        self._launch = library().specee_launch
        self._why = ctypes.create_string_buffer(500)

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Seq[Any]) -> None:
        kinds, values = "", []
        for argument in arguments:
            if argument is None or not isinstance(argument, np.generic):
                kinds += "p"
                values.append(0 if argument is None else _place(argument))
            else:
                kinds += _KINDS[argument.dtype.name]
                real = argument.dtype.kind == "f"
                values.append(int(argument.view(np.uint32)) if real else int(argument))
        status = self._launch(
            *(kernel.encode(), (ctypes.c_uint * 3)(*grid), threads, ctypes.c_uint64(self.seed)),
            *(kinds.encode(), (ctypes.c_int64 * len(values))(*values)),
            *(self._why, ctypes.c_size_t(len(self._why))),
        )
        if status != 0:
            raise EmulatedError(f"{kernel}: {self._why.value.decode()}")


_KINDS = {"int32": "i", "int64": "l", "float32": "f"}


def _place(array: Any) -> int:
    return int(array.data_ptr() if hasattr(array, "data_ptr") else array.ctypes.data)


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
        kind = _KINDS[argument.dtype.name]
        return f"{kind} {float(argument).hex() if kind == 'f' else int(argument)}"
    known = next((i for i, array in enumerate(arrays) if array is argument), None)
    if known is None:
        known = len(arrays)
        arrays.append(argument if argument.flags.c_contiguous else _from_first_to_last(argument))
    return f"p {known}"


def _from_first_to_last(columns: np.ndarray) -> np.ndarray:
    """All numbers between the first and the last one of some columns of a matrix, where they are."""
    whole = columns.base
    assert whole is not None
    assert whole.flags.c_contiguous
    begin = (_place(columns) - _place(whole)) // whole.itemsize
    (rows, width), stride = columns.shape, columns.strides[0] // whole.itemsize
    return whole.reshape(-1)[begin : begin + (rows - 1) * stride + width]
