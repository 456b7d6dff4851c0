"""Text to token ids and back: a thin wrapper over ``tokenizers.Tokenizer``.

Its calls mirror transformers' (``tokenizer(text)``, ``decode``, ``apply_chat_template``), so it can
be handed to ``transformers.TextStreamer`` and its results unpacked into ``generate``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers

from specee.errors import CheckpointError, ConfigurationError
from specee.models.chat_template import render_chat
from specee.models.detokenizer import IncrementalDecoder

ReturnTensors = Literal["np", "pt"] | None
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


class TokenizedText(dict[str, Any]):
    """``input_ids`` and ``attention_mask``, as a dictionary and as attributes.

    Lists, or with ``return_tensors`` int64 arrays or tensors of shape (texts, tokens).
    """

    @property
    def input_ids(self) -> Any:
        """Token ids."""
        return self["input_ids"]

    @property
    def attention_mask(self) -> Any:
        """1 for tokens, 0 for padding."""
        return self["attention_mask"]


@dataclass(frozen=True)
class SpecialTokens:
    """Text of the special tokens with a role, None where there is none."""

    bos_token: str | None = None
    eos_token: str | None = None
    pad_token: str | None = None
    unk_token: str | None = None


class Tokenizer:
    """Encodes and decodes text; made by :meth:`from_folder` or from GGUF metadata."""

    def __init__(
        self, backend: tokenizers.Tokenizer, special: SpecialTokens, chat_template: str | None = None
    ) -> None:
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.special = special
        self.chat_template = chat_template

    @classmethod
    def from_folder(cls, folder: Path) -> Tokenizer:
        """Read tokenizer.json, tokenizer_config.json and chat_template.jinja of a Hugging Face folder.

        Raises CheckpointError for files that cannot be parsed.
        """
        path = folder / "tokenizer.json"
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception
            raise CheckpointError(f"{path}: not a usable tokenizer ({error}). Fetch it again.") from error
        settings = _settings(folder)
        _add_missing_tokens(backend, settings)
        special = SpecialTokens(**{name: _text(settings.get(name)) for name in _NAMED})
        return cls(backend, special, _folder_template(folder, settings))

    @property
    def vocab_size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    @property
    def highest_id(self) -> int:
        """The largest id that encoding can produce, -1 if there is none."""
        return max(self.backend.get_vocab(with_added_tokens=True).values(), default=-1)

    @property
    def bos_token_id(self) -> int | None:
        """Id of the beginning-of-sequence token."""
        return self._id(self.special.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """Id of the end-of-sequence token."""
        return self._id(self.special.eos_token)

    @property
    def pad_token_id(self) -> int | None:
        """Id of the padding token."""
        return self._id(self.special.pad_token)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of one text; ``add_special_tokens`` lets the post-processor add bos and eos.

        Raises ConfigurationError for what is no text: another type, or bytes that were not valid UTF-8.
        """
        try:
            return list(self.backend.encode(text, add_special_tokens=add_special_tokens).ids)
        except TypeError as error:
            raise ConfigurationError(
                f"the text {text!r:.60} cannot be encoded: a str of valid Unicode is needed"
            ) from error

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **_ignored: Any) -> str:
        """Text of token ids: an id, or any flat sequence, array or tensor of them.

        Further options of transformers' decode (clean_up_tokenization_spaces, ...) are ignored.
        """
        ids = np.asarray(token_ids, dtype=np.int64).reshape(-1).tolist()
        return str(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def stream(self, *, skip_special_tokens: bool = False) -> IncrementalDecoder:
        """A decoder that is fed one token id at a time and returns text as soon as it is certain."""
        return IncrementalDecoder(lambda ids: self.decode(ids, skip_special_tokens))

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        padding: bool = False,
        return_tensors: ReturnTensors = None,
    ) -> TokenizedText:
        """Tokenize one text or several; ``padding`` fills on the left to the longest.

        Raises ConfigurationError for rows of different length in tensors without padding, for
        padding without a padding token, and for an unknown ``return_tensors``.
        """
        texts = [text] if isinstance(text, str) else list(text)
        rows = [self.encode(item, add_special_tokens=add_special_tokens) for item in texts]
        masks = [[1] * len(row) for row in rows]
        if padding:
            rows, masks = self._pad_left(rows, masks)
        if return_tensors is None and isinstance(text, str):
            return TokenizedText(input_ids=rows[0], attention_mask=masks[0])
        return TokenizedText(
            input_ids=_as_tensor(rows, return_tensors), attention_mask=_as_tensor(masks, return_tensors)
        )

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        return_tensors: ReturnTensors = None,
        return_dict: bool = True,
        **template_options: Any,
    ) -> Any:
        """Format a conversation as the model was trained to see it.

        ``messages`` is ``[{"role": ..., "content": ...}, ...]``.

        Returns the text if not ``tokenize``; else a :class:`TokenizedText`, or with
        ``return_dict=False`` its ``input_ids`` alone. ``template_options`` are variables for the template.
        Raises ConfigurationError without a template or if the template refuses the messages.
        """
        if self.chat_template is None:
            raise ConfigurationError(
                "this model's tokenizer has no chat template; format the prompt yourself and pass it as text."
            )
        named = {name: value for name in _NAMED if (value := getattr(self.special, name)) is not None}
        text = render_chat(
            self.chat_template,
            {
                "tools": None,
                "documents": None,
                **named,
                **template_options,
                "messages": messages,
                "add_generation_prompt": add_generation_prompt,
            },
        )
        if not tokenize:
            return text
        # The template writes bos itself where the model wants one.
        result = self(text, add_special_tokens=False, return_tensors=return_tensors)
        return result if return_dict else result.input_ids

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self.backend.token_to_id(token)

    def _pad_left(
        self, rows: list[list[int]], masks: list[list[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        pad, width = self.pad_token_id, max(map(len, rows), default=0)
        if pad is None:
            raise ConfigurationError(
                "padding=True, but this tokenizer has no padding token; pass texts one by one."
            )
        return (
            [[pad] * (width - len(row)) + row for row in rows],
            [[0] * (width - len(mask)) + mask for mask in masks],
        )


def _as_tensor(rows: list[list[int]], kind: ReturnTensors) -> Any:
    if kind is None:
        return rows
    if kind not in ("np", "pt"):
        raise ConfigurationError(f"return_tensors is {kind!r}; it must be None, 'np' or 'pt'.")
    if len({len(row) for row in rows}) > 1:
        raise ConfigurationError("texts of different length do not fit one tensor; pass padding=True.")
    array = np.array(rows, dtype=np.int64).reshape(len(rows), -1)
    if kind == "np":
        return array
    import torch

    return torch.from_numpy(array)


def _text(token: Any) -> str | None:
    """The text of a special token: a string, or the dictionary of an AddedToken."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read as JSON ({error}). Fetch it again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}; it must hold a JSON object.")
    return values


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json, completed from the older special_tokens_map.json."""
    return {
        **_read_object(folder / "special_tokens_map.json"),
        **_read_object(folder / "tokenizer_config.json"),
    }


def _folder_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, Mapping)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _add_missing_tokens(backend: tokenizers.Tokenizer, settings: Mapping[str, Any]) -> None:
    """Special tokens that only tokenizer_config.json knows, if the ids it gives are the next free ones."""
    listed = settings.get("added_tokens_decoder")
    entries: Iterable[tuple[str, Any]] = listed.items() if isinstance(listed, Mapping) else ()
    numbered = {int(key): entry for key, entry in entries if key.isdigit()}
    for key in sorted(numbered):
        entry, free = numbered[key], backend.get_vocab_size(with_added_tokens=True)
        content = _text(entry)
        if content is None or backend.token_to_id(content) is not None:
            continue
        if key != free:
            raise CheckpointError(
                f"tokenizer_config.json: added token {content!r} has id {key}, but tokenizer.json lacks it "
                f"and its next free id is {free}. The two files do not match."
            )
        token = tokenizers.AddedToken(content, special=bool(entry.get("special", False)), normalized=False)
        backend.add_tokens([token])
