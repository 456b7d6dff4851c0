"""Compiles csrc/graph/set_conditions.cuh into PTX that any driver with conditional nodes takes.

    python scripts/condition_ptx.py [--save]

Prints csrc/graph/condition_ptx.h, or writes it: specee._graph is built where there is no CUDA. Needs nvcc.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "csrc"))
import cuda_build  # noqa: E402  not on the path: it is not part of the package

SOURCE = ROOT / "csrc" / "graph" / "set_conditions.cuh"
RESULT = ROOT / "csrc" / "graph" / "condition_ptx.h"
PROGRAM = f'#include "{SOURCE.parent.name}/{SOURCE.name}"\n'
ARCHITECTURE = "80"  # the oldest that kernels are compiled for
# The language of sm_80. Compilers write their own, which older drivers refuse; nothing newer is used.
LANGUAGE = "7.0"
HEADER = """// set_conditions.cuh as PTX, which drivers compile for their device (scripts/condition_ptx.py).
#pragma once

namespace specee::graph {{

// clang-format off
inline constexpr char kConditionPtx[] = R"ptx(
{ptx}
)ptx";
// clang-format on

}}  // namespace specee::graph
"""


def header(ptx: str) -> str:
    """The header around a compiler's PTX, less its comments and with ``LANGUAGE`` for its version."""
    lines = [line.split("//")[0].rstrip() for line in ptx.rstrip("\0").splitlines()]
    lines = [f".version {LANGUAGE}" if line.startswith(".version") else line for line in lines]
    # NVRTC has constants of headers in memory, too; nothing reads them there.
    lines = [line for line in lines if line and not line.startswith(".global")]
    return HEADER.format(ptx="\n".join(lines))


def compiled(nvcc: str) -> str:
    """PTX by nvcc."""
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "conditions.cu"), Path(folder, "conditions.ptx")
        source.write_text(PROGRAM)
        include = [f"-I{ROOT / folder}" for folder in ("csrc", "csrc/include")]
        target = ["-ptx", f"-arch=compute_{ARCHITECTURE}"]
        cuda_build.run([nvcc, *cuda_build.NVCC_FLAGS, *target, *include, source, "-o", output])
        return output.read_text()


def main() -> int:
    """Print or save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--save", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    options = parser.parse_args()
    nvcc = cuda_build.find_nvcc()
    if nvcc is None:
        print("nvcc is neither on the PATH nor in CUDA_HOME", file=sys.stderr)
        return 2
    text = header(compiled(nvcc))
    if options.save:
        RESULT.write_text(text)
    else:
        print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
