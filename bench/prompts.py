"""The prompts that are measured with, as texts and as token ids."""

from __future__ import annotations

from pathlib import Path

from specee.models.tokenizer import Tokenizer
from specee.prompt_file import read_prompts_file

OWN = Path(__file__).parent / "prompts.jsonl"
COPYING = Path(__file__).parent / "copy_prompts.jsonl"


def load(paths: list[Path] | None = None) -> list[str]:
    """The texts of the given files, or of the project's own. Raises ConfigurationError."""
    return [text for path in paths or [OWN] for text in read_prompts_file(path)]


def encoded(tokenizer: Tokenizer, paths: list[Path] | None = None) -> list[list[int]]:
    """The same as token ids: a user's message in the chat template, if the model has one."""
    texts = load(paths)
    if tokenizer.chat_template is None:
        return [tokenizer.encode(text) for text in texts]
    chats = [[{"role": "user", "content": text}] for text in texts]
    return [list(tokenizer.apply_chat_template(chat, return_dict=False)) for chat in chats]
