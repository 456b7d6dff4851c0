"""Prompt files: JSON lines with the text in ``turns[0]`` (the Spec-Bench format)."""

from __future__ import annotations

import json
from pathlib import Path

OWN = Path(__file__).parent / "prompts.jsonl"


def load(paths: list[Path] | None = None) -> list[str]:
    """The texts of the given files, or of the project's own."""
    texts = []
    for path in paths or [OWN]:
        texts += [json.loads(line)["turns"][0] for line in path.read_text().splitlines() if line.strip()]
    return texts
