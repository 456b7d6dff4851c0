"""Files of prompts: JSON lines with the text in ``turns[0]`` (the Spec-Bench format)."""

from __future__ import annotations

import json
from pathlib import Path

from specee.errors import ConfigurationError


def read_prompts_file(path: Path) -> list[str]:
    """The first turn of each line; empty lines are skipped. Raises ConfigurationError, also for no prompt."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"prompts {path}: cannot be read ({error}); give a file of JSON lines"
        ) from error
    texts = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["turns"][0]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str) or not text:
            raise ConfigurationError(
                f'prompts {path}, line {number}: {line[:60]!r} is not of the form {{"turns": ["text"]}}'
            )
        texts.append(text)
    if not texts:
        raise ConfigurationError(f"prompts {path}: holds no prompt; give one JSON object a line")
    return texts
