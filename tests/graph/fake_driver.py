"""tests/native/graph: a library that says it is the CUDA driver.

It writes down every call and runs graphs on the host. Kernels run in it as they do in the emulator, but in
this process and without sanitizers, so that whole programs of them are cheap.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from specee import _graph
from specee.cuda import graph
from specee.cuda.lowering import argument_bytes
from tests.cuda.emulator import ROOT, compiler

SOURCES = ROOT / "tests" / "native" / "graph"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fPIC",
    "-Wall",
    "-Wextra",
    "-Werror",
]
FLAGS += [
    "-Wno-unknown-pragmas",
    "-fvisibility=hidden",
    f"-I{ROOT / 'csrc'}",
    f"-I{ROOT / 'csrc' / 'include'}",
]
FAKE = [SOURCES / f"{name}.cpp" for name in ("fake_cuda", "fake_graphs", "objects", "kernels")]
BLOCK = ROOT / "tests" / "native" / "cuda" / "block.cpp"
OUT_OF_MEMORY = 2


# What a driver before conditional nodes does not have.
OLD = "{ global: *; local: cuGraphAddKernelNode_v2; cuGraphAddNode_v2; cuGraphConditionalHandleCreate; };"


def call_compiler(*arguments: str | Path) -> None:
    """Fail with the compiler's words."""
    command = compiler()
    assert command is not None
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Built:
    """The library; one that lacks the functions of conditional nodes; and what they are linked from."""

    library: Path
    old: Path
    objects: list[Path]


def build(folder: Path) -> Built:
    """Compile into ``folder`` what is not there yet; processes that share it wait for each other."""
    folder.mkdir(exist_ok=True)
    sources = [
        *(SOURCES / f"{name}.cpp" for name in ("fake_cuda", "fake_graphs", "objects", "kernels")),
        BLOCK,
    ]
    objects = [folder / f"{source.stem}.o" for source in sources]
    built = Built(folder / "libfake.so", folder / "libold.so", objects)
    with FileLock(folder / "lock"):
        if not built.old.exists():
            for source, output in zip(sources, objects, strict=True):
                call_compiler(*FLAGS, "-c", source, "-o", output)
            exports = folder / "old.map"
            exports.write_text(OLD)
            call_compiler("-shared", *objects, "-o", built.library)
            call_compiler("-shared", *objects, f"-Wl,--version-script={exports}", "-o", built.old)
    return built


@dataclass
class Node:
    """A node as the driver was told of it; ``body`` of a conditional alone."""

    graph: int
    id: int
    after: list[int]
    kernel: str = ""
    grid: tuple[int, ...] = ()
    block: tuple[int, ...] = ()
    arguments: list[bytes] = field(default_factory=list)
    kind: str = "kernel"
    handle: int = 0
    body: list[Node] = field(default_factory=list)


class FakeDriver:
    """The library, loaded; the same one that ``specee._graph`` gets by this path."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self._library = ctypes.CDLL(self.path)
        for name in ("log", "live"):
            getattr(self._library, f"fake_{name}").restype = ctypes.c_char_p
        for name in ("calls", "ran"):
            getattr(self._library, f"fake_{name}").restype = ctypes.c_int64
        self.reset()

    def reset(self, version: int = 12040, *, context: bool = True) -> None:
        """Forget all calls; what was built must be gone by now."""
        self._library.fake_reset(ctypes.c_int(version), ctypes.c_int(context))
        graph.driver.cache_clear()

    def fail(self, call: int, status: int = OUT_OF_MEMORY) -> None:
        """Have the ``call``-th call from now on fail, 1 being the next; 0 for none."""
        self._library.fake_fail(ctypes.c_int64(call), ctypes.c_int(status))

    def seed(self, seed: int) -> None:
        """Of the order of nodes, blocks and threads."""
        self._library.fake_seed(ctypes.c_uint64(seed))

    def calls(self) -> int:
        return int(self._library.fake_calls())

    def ran(self, kernel: str) -> int:
        """How often a kernel has run, in graphs or without."""
        return int(self._library.fake_ran(kernel.encode()))

    def log(self) -> list[str]:
        return str(self._library.fake_log().decode()).splitlines()

    def called(self, since: int = 0) -> list[str]:
        """Names of calls from a line of the log on, but for those that ask for the context."""
        names = [line.split()[0] for line in self.log()[since:]]
        return [name for name in names if name != "cuCtxGetCurrent"]

    def misuses(self) -> list[str]:
        return [line for line in self.log() if line.startswith("misuse")]

    def live(self) -> dict[str, int]:
        """How many objects are alive, by kind."""
        parts = self._library.fake_live().decode().split(", ")
        return {kind: int(count) for count, kind in (part.split() for part in parts)}

    def nodes(self) -> list[Node]:
        """The graph that the calls so far have built, bodies inside of their conditionals."""
        bodies: dict[int, list[Node]] = {}
        first = -1
        for line in self.log():
            call, *parts = line.split()
            if call == "cuGraphCreate":
                first = int(parts[0])
                bodies[first] = []
            elif call == "cuGraphAddKernelNode_v2":
                of, number, after, kernel, *numbers, values = parts
                *sizes, shared = map(int, numbers)
                assert shared == 0
                data = [] if values == "-" else [bytes.fromhex(value) for value in values.split("|")]
                node = Node(
                    int(of), int(number), _ids(after), kernel, tuple(sizes[:3]), tuple(sizes[3:]), data
                )
                bodies[int(of)].append(node)
            elif call == "cuGraphAddNode_v2":
                of, number, after, kind, handle, repeats, body = parts
                assert kind == "13"
                bodies[int(body)] = []
                bodies[int(of)].append(
                    Node(
                        int(of),
                        int(number),
                        _ids(after),
                        kind=("if", "while")[int(repeats)],
                        handle=int(handle),
                        body=bodies[int(body)],
                    )
                )
        return bodies[first]

    def handles(self) -> dict[int, int]:
        """Of each condition's handle, the graph that it was created for."""
        lines = [line.split() for line in self.log() if line.startswith("cuGraphConditionalHandleCreate")]
        return {int(parts[2]): int(parts[1]) for parts in lines}


def _ids(text: str) -> list[int]:
    return [int(part) for part in text.removeprefix("after=").split(",") if part]


class FakeLauncher:
    """Launches kernels one by one through the driver."""

    def __init__(self, fake: FakeDriver) -> None:
        self.driver = graph.driver(fake.path)
        self._module = _graph.Module(self.driver, b"an image")
        self.launched: list[str] = []

    def function(self, kernel: str) -> int:
        """The driver's handle of a kernel."""
        return self._module.function(kernel)

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Seq[Any]) -> None:
        values = [argument_bytes(argument) for argument in arguments]
        self.driver.launch(self.function(kernel), grid, threads, values, 0)
        self.launched.append(kernel)
