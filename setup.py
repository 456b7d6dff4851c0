"""Builds ``specee._cpu``, one extension with the code of every CPU instruction set, ``_graph`` and ``_cuda``.

Metadata is in pyproject.toml, compiler flags in csrc/native_flags.py and csrc/cuda_build.py. Environment:
``SPECEE_WERROR=1`` turns warnings into errors; ``MAX_JOBS`` bounds the compilers that run at once (default:
the cores at hand); ``SPECEE_BUILD_CUDA`` is whether there is ``specee._cuda`` (default: if nvcc is there).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
CUDA = "specee._cuda"
# What NVRTC compiles at run time is installed beside specee/cuda, which finds it there.
DEVICE_CODE = {"specee.cuda.kernels": "csrc/cuda", "specee.cuda.include.specee": "csrc/include/specee"}
sys.path.insert(0, str(ROOT / "csrc"))
import cuda_build  # noqa: E402  an isolated build does not have the project's folders on its path
import native_flags  # noqa: E402


def sources(*folders: str) -> list[str]:
    """C++ files of an extension that this platform can compile, relative to the root."""
    found = sorted(p for folder in folders for p in ROOT.glob(f"csrc/{folder}/*.cpp"))
    return [name for p in found if native_flags.compiled(name := p.relative_to(ROOT).as_posix())]


def compile_jobs() -> int:
    """Compilers to run at once."""
    if "MAX_JOBS" in os.environ:
        return max(1, int(os.environ["MAX_JOBS"]))
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(compile_one: Callable[[str], list[str]], names: list[str]) -> list[str]:
    """Object files of all sources, in order; the first failure stops the compilers not yet started."""
    pool = ThreadPoolExecutor(compile_jobs())
    try:
        return [name for objects in pool.map(compile_one, names) for name in objects]
    finally:
        pool.shutdown(cancel_futures=True)


class BuildExtension(build_ext):
    """build_ext with flags per file and several compilers at once."""

    def run(self) -> None:
        """Leave ``_cuda`` out where SPECEE_BUILD_CUDA or a missing nvcc says so."""
        self.extensions = [ext for ext in self.extensions if ext.name != CUDA or cuda_build.wanted()]
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile each source with its own flags, then link."""
        if self.compiler.compiler_type == "msvc":
            raise SystemExit("specee builds with GCC or Clang; MSVC is not supported. On Windows, use WSL.")
        output = self.get_ext_fullpath(ext.name)
        if ext.name == CUDA:
            self.build_cuda(ext, Path(output))
        else:
            objects = self.compile_sources(ext)
            self.compiler.link_shared_object(
                objects, output, libraries=ext.libraries, extra_postargs=["-pthread"], target_lang="c++"
            )

    def compile_sources(self, ext: Extension) -> list[str]:
        """Object files of an extension's C++ sources."""
        macros = [native_flags.X86_MACRO] if native_flags.on_x86_64_linux() else []
        werror = ["-Werror"] if os.environ.get("SPECEE_WERROR") == "1" else []
        common = [*native_flags.COMMON, *native_flags.RELEASE, *werror]

        def compile_one(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=ext.include_dirs,
                extra_postargs=[
                    *common,
                    *native_flags.unhurried(source),
                    *(native_flags.isa_flags(source) or []),
                ],
            )

        return in_parallel(compile_one, ext.sources)

    def build_cuda(self, ext: Extension, output: Path) -> None:
        """Kernels and bindings; that nvcc fails is an error only where SPECEE_BUILD_CUDA=1."""
        nvcc, kernels = cuda_build.find_nvcc(), Path(self.build_temp) / "cuda" / "kernels.o"
        extra = cuda_build.WARNINGS_ARE_ERRORS if os.environ.get("SPECEE_WERROR") == "1" else []
        try:
            cuda_build.compile_kernels(nvcc, kernels, compile_jobs(), extra)
            cuda_build.link(nvcc, [*self.compile_sources(ext), str(kernels)], output)
        except (OSError, subprocess.CalledProcessError) as error:
            words = (getattr(error, "stdout", None) or str(error)).strip()
            if cuda_build.mode() == "1":
                raise CompileError(f"nvcc failed:\n{words}") from error
            raise CompileError(f"nvcc failed, going on without: {words.splitlines()[-1]}") from error


class BuildPython(build_py):
    """build_py that starts clean: a module deleted from the tree must not live on in the next wheel."""

    def run(self) -> None:
        """Drop what an earlier build left, then copy the modules."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


def extension(name: str, files: list[str], **options: Any) -> Extension:
    """A C++ extension; the build goes on without one that is ``optional`` and fails."""
    include = [*native_flags.INCLUDE, pybind11.get_include()]
    return Extension(name, files, include_dirs=include, language="c++", **options)


setup(
    packages=[
        *find_packages(include=["specee", "specee.*"]),
        *(f"specee.{name}" for name in find_packages(include=["bench", "bench.*"])),
        "specee.triton_kernels",
        *DEVICE_CODE,
    ],
    package_dir={"specee.bench": "bench", "specee.triton_kernels": "triton_kernels", **DEVICE_CODE},
    package_data={
        "specee": ["py.typed", "*.pyi", "speculators/*.safetensors"],
        "specee.bench": ["*.jsonl"],
        "specee.bench.harness": ["*.jsonl", "*.yaml"],
        "specee.cuda.kernels": ["*.cuh"],
        "specee.cuda.include.specee": [
            "block_record.h",
            "device.h",
            "exit_record.h",
            "given_record.h",
            "philox.h",
            "round_record.h",
            "tiles.h",
        ],
    },
    include_package_data=False,
    ext_modules=[
        extension("specee._cpu", sources("cpu", "policy", "bindings")),
        # Loads the driver when it is used, so that it needs nothing of CUDA; drivers are for Linux alone.
        *(
            [extension("specee._graph", sources("graph", "bindings/graph"), libraries=["dl"])]
            if sys.platform == "linux"
            else []
        ),
        extension(CUDA, [cuda_build.BINDINGS], optional=cuda_build.mode() != "1"),
    ],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
    zip_safe=False,
)
