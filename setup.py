"""Builds ``specee._cpu``: one extension that holds the code of every CPU instruction set.

Metadata is in pyproject.toml, compiler flags in csrc/native_flags.py. Environment: ``SPECEE_WERROR=1`` turns
warnings into errors; ``MAX_JOBS`` bounds the compilers that run at once (default: the cores at hand).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "csrc"))
import native_flags  # noqa: E402  an isolated build does not have the project's folders on its path


def sources() -> list[str]:
    """C++ files of the extension that this platform can compile, relative to the root."""
    found = sorted([*ROOT.glob("csrc/cpu/*.cpp"), *ROOT.glob("csrc/bindings/*.cpp")])
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

    def build_extension(self, ext: Extension) -> None:
        """Compile each source with its own flags, then link."""
        if self.compiler.compiler_type == "msvc":
            raise SystemExit("specee builds with GCC or Clang; MSVC is not supported. On Windows, use WSL.")
        macros = [native_flags.X86_MACRO] if native_flags.on_x86_64_linux() else []
        werror = ["-Werror"] if os.environ.get("SPECEE_WERROR") == "1" else []
        common = [*native_flags.COMMON, *native_flags.RELEASE, *werror]

        def compile_one(source: str) -> list[str]:
            return self.compiler.compile(
                [source],
                output_dir=self.build_temp,
                macros=macros,
                include_dirs=ext.include_dirs,
                extra_postargs=[*common, *(native_flags.isa_flags(source) or [])],
            )

        objects = in_parallel(compile_one, ext.sources)
        self.compiler.link_shared_object(
            objects, self.get_ext_fullpath(ext.name), extra_postargs=["-pthread"], target_lang="c++"
        )


class BuildPython(build_py):
    """build_py that starts clean: a module deleted from the tree must not live on in the next wheel."""

    def run(self) -> None:
        """Drop what an earlier build left, then copy the modules."""
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


setup(
    packages=[
        *find_packages(include=["specee", "specee.*"]),
        *(f"specee.{name}" for name in find_packages(include=["bench", "bench.*"])),
        "specee.triton_kernels",
    ],
    package_dir={"specee.bench": "bench", "specee.triton_kernels": "triton_kernels"},
    package_data={"specee": ["py.typed", "*.pyi", "speculators/*.safetensors"], "specee.bench": ["*.jsonl"]},
    include_package_data=False,
    ext_modules=[
        Extension(
            "specee._cpu",
            sources(),
            include_dirs=[*native_flags.INCLUDE, pybind11.get_include()],
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildExtension, "build_py": BuildPython},
    zip_safe=False,
)
