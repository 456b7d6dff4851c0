"""Prompt files: JSON lines with the text in ``turns[0]`` (the Spec-Bench format)."""

from __future__ import annotations

import json
from pathlib import Path

from specee.errors import ConfigurationError
from specee.models.tokenizer import Tokenizer

OWN = Path(__file__).parent / "prompts.jsonl"
COPYING = Path(__file__).parent / "copy_prompts.jsonl"


def load(paths: list[Path] | None = None) -> list[str]:
    """The texts of the given files, or of the project's own. Raises ConfigurationError."""
    return [text for path in paths or [OWN] for text in _read(path)]


def encoded(tokenizer: Tokenizer, paths: list[Path] | None = None) -> list[list[int]]:
    """The same as token ids: a user's message in the chat template, if the model has one."""
    texts = load(paths)
    if tokenizer.chat_template is None:
        return [tokenizer.encode(text) for text in texts]
    chats = [[{"role": "user", "content": text}] for text in texts]
    return [list(tokenizer.apply_chat_template(chat, return_dict=False)) for chat in chats]


def _read(path: Path) -> list[str]:
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
        except (ValueError, KeyError, IndexError, TypeError):
            text = None
        if not isinstance(text, str) or not text:
            raise ConfigurationError(
                f'prompts {path}, line {number}: {line[:60]!r} is not of the form {{"turns": ["text"]}}'
            )
        texts.append(text)
    if not texts:
        raise ConfigurationError(f"prompts {path}: holds no prompt; give one JSON object a line")
    return texts
