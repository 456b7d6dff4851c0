"""Sums up a round on a GPU: ``python -m bench.gpu_summary FOLDER NAME=STATUS=SECONDS...``.

Writes gpu_round.json to the folder: everything that stages have measured, and the ends of logs of those that
failed. Ends with status 1 if one did, or if there was no time left for it; one that was left out says why in
place of its status.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

RESULTS = ("cuda", "cuda_decode", "rounds", "cuda_steps", "cuda_planted", "decode")  # what benches write
LEFT_OUT = ("not installed", "no model")  # which is no failure
TAIL = 6000  # characters of the log of a stage that failed


def stage(text: str) -> dict[str, Any]:
    """``NAME=STATUS=SECONDS`` as a record."""
    name, status, seconds = text.split("=")
    return {"stage": name, "status": int(status) if status.isdigit() else status, "seconds": int(seconds)}


def tests(junit: str) -> dict[str, Any]:
    """Counts of a JUnit report, and every skip by name and reason."""
    cases = list(ElementTree.fromstring(junit).iter("testcase"))
    found: dict[str, Any] = {"tests": len(cases)}
    for kind in ("failure", "error", "skipped"):
        found[kind] = [
            {"test": f"{case.get('classname')}.{case.get('name')}", "why": inner.get("message")}
            for case in cases
            if (inner := case.find(kind)) is not None
        ]
    return found


def benches(recorded: str) -> list[dict[str, Any]]:
    """The records of all benches."""
    return [found["extra_info"] for found in json.loads(recorded)["benchmarks"]]


def summary(folder: Path, stages: list[str]) -> dict[str, Any]:
    """All there is; what a stage did not leave is missing."""
    found: dict[str, Any] = {"what": "kernels on a GPU", "stages": [stage(text) for text in stages]}
    for name, file, read in (
        *(("tests", "tests.xml", tests), ("triton_tests", "triton_tests.xml", tests)),
        ("kernels", "benches.json", benches),
        *((name, f"{name}.json", json.loads) for name in RESULTS),
    ):
        if (folder / file).is_file():
            try:
                found[name] = read((folder / file).read_text())
            except (ValueError, KeyError, ElementTree.ParseError) as error:  # it was cut off
                found[name] = {"error": f"{file} cannot be read: {error}"}
    failed = [one["stage"] for one in found["stages"] if one["status"] not in (0, *LEFT_OUT)]
    found["logs"] = {name: _end_of(folder / f"{name}.log") for name in failed}
    return found


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-TAIL:] if log.is_file() else ""


def main() -> None:
    """Write, and say in one line each how stages went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("stages", nargs="+")
    options = parser.parse_args()
    result = summary(options.folder, options.stages)
    (options.folder / "gpu_round.json").write_text(json.dumps(result, indent=1) + "\n")
    for done in result["stages"]:
        print(f"{done['stage']:<12} {done['seconds']:>4} s  status {done['status']}")
    sys.exit(any(done["status"] not in (0, *LEFT_OUT) for done in result["stages"]))


if __name__ == "__main__":
    main()
