"""Compiles every variant of the Triton kernels, without a GPU, and writes what each takes of a
multiprocessor.

    python -m bench.kernels.triton_resources [--quick] [--target 80]... [--output FILE]

Registers, stack (what is spilled lies there) and shared memory are read from the cubin. The table is
``bench/results/triton_resources.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TARGETS = (80, 89, 90)
TABLE = Path(__file__).resolve().parents[1] / "results" / "triton_resources.json"
_USAGE = re.compile(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")


def compiled(launch: Any, target: int) -> Any:
    """The kernel of a launch, compiled for that compute capability."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from specee.triton_kernels.launch import OPTIONS

    from .triton_variants import specialised

    names = launch.kernel.arg_names
    signature, constants, attributes = {}, {}, {}
    for index, name in enumerate(names):
        if index >= len(launch.arguments):
            signature[name], constants[index,] = "constexpr", launch.constants[name]
            continue
        signature[name], known = specialised(launch.arguments[index])
        if signature[name] == "constexpr":
            constants[index,] = known
        elif known == 16:
            attributes[index,] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    options = {"num_warps": launch.warps, "num_stages": launch.stages, **OPTIONS}
    return triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)


def usage(cubin: bytes) -> dict[str, int]:
    """Registers a thread, and bytes of stack and local memory a thread, as cuobjdump finds them."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        )
    found = [tuple(map(int, match)) for match in _USAGE.findall(done.stdout)]
    assert len(found) == 1, done.stdout
    registers, stack, _, local = found[0]
    return {"registers": registers, "stack": stack, "local": local}


def measure(targets: tuple[int, ...], *, quick: bool) -> list[dict[str, Any]]:
    """A record for each variant and target."""
    from .triton_variants import quick_ones, variants

    records = []
    for variant in quick_ones() if quick else variants():
        for target in targets:
            kernel = compiled(variant.launch, target)
            record = {"variant": variant.name, "target": f"sm_{target}", "warps": variant.launch.warps}
            records.append(record | usage(kernel.asm["cubin"]) | {"shared": kernel.metadata.shared})
            print(json.dumps(records[-1]), file=sys.stderr, flush=True)
    return records


def table(version: str, records: list[dict[str, Any]]) -> str:
    """JSON with a line for each record, so that a change shows what it changed."""
    head = json.dumps({"what": "resources of the Triton kernels", "triton": version})
    return f'{head[:-1]}, "kernels": [\n' + ",\n".join(map(json.dumps, records)) + "\n]}\n"


def main() -> None:
    """Compile and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one variant of each kernel")
    parser.add_argument("--target", type=int, action="append", choices=TARGETS, help="may be given again")
    parser.add_argument("--output", type=Path, default=TABLE)
    options = parser.parse_args()
    if os.environ.pop("TRITON_INTERPRET", "0") not in ("", "0"):
        sys.exit("error: TRITON_INTERPRET is set, and an interpreted kernel cannot be compiled: unset it")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        import triton

        records = measure(tuple(options.target or TARGETS), quick=options.quick)
        options.output.write_text(table(triton.__version__, records))


if __name__ == "__main__":
    main()
