"""Prompt files: JSON lines with the text in ``turns[0]`` (the Spec-Bench format)."""

from __future__ import annotations

import json
from pathlib import Path

from specee.models.tokenizer import Tokenizer

OWN = Path(__file__).parent / "prompts.jsonl"


def load(paths: list[Path] | None = None) -> list[str]:
    """The texts of the given files, or of the project's own."""
    texts = []
    for path in paths or [OWN]:
        texts += [json.loads(line)["turns"][0] for line in path.read_text().splitlines() if line.strip()]
    return texts


def encoded(tokenizer: Tokenizer, paths: list[Path] | None = None) -> list[list[int]]:
    """The same as token ids: a user's message in the chat template, if the model has one."""
    texts = load(paths)
    if tokenizer.chat_template is None:
        return [tokenizer.encode(text) for text in texts]
    chats = [[{"role": "user", "content": text}] for text in texts]
    return [list(tokenizer.apply_chat_template(chat, return_dict=False)) for chat in chats]
