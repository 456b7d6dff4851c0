"""Prompts as transformers users pass them, into rows of ids; and results back in the kind that came in."""

from __future__ import annotations

import sys
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from specee.errors import ConfigurationError

Kind = Literal["torch", "numpy", "lists", "list"]
Ids = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts, padded on the left: ``ids`` and ``mask`` are (batch, width).

    ``kind`` is what the caller gave: a torch tensor (on ``device``), a numpy array, a list of lists, or one
    flat list.
    """

    ids: Ids
    mask: npt.NDArray[np.bool_]
    kind: Kind
    device: Any = None

    @property
    def rows(self) -> list[tuple[int, ...]]:
        """Token ids of each prompt without its padding."""
        return [tuple(row[keep].tolist()) for row, keep in zip(self.ids, self.mask, strict=True)]

    def like_given(self, array: Ids) -> Any:
        """``array`` (batch, any width) in the kind and on the device of the prompts."""
        if self.kind == "torch":
            import torch

            return torch.from_numpy(array).to(self.device)
        if self.kind == "numpy":
            return array
        return array[0].tolist() if self.kind == "list" else array.tolist()

    def for_streamer(self, tokens: Seq[int]) -> Any:
        """Tokens as a streamer of transformers expects them: (tokens,), a tensor or an array."""
        array = np.array(tokens, np.int64)
        if self.kind != "torch":
            return array
        import torch

        return torch.from_numpy(array)

    def completed(self, new: Seq[Seq[int]], pad: int) -> Any:
        """Prompts as they came, each with its new tokens, filled with ``pad`` on the right."""
        width = max(len(tokens) for tokens in new)
        rows = [
            [*prompt, *tokens, *[pad] * (width - len(tokens))]
            for prompt, tokens in zip(self.ids.tolist(), new, strict=True)
        ]
        return self.like_given(np.array(rows, np.int64))


def read_prompts(input_ids: Any, attention_mask: Any, pad_token_id: int | None, vocab_size: int) -> Prompts:
    """Check and convert what ``generate`` was given.

    ``input_ids``: (batch, width) tensor, array or lists of whole numbers, or one flat list. Where
    ``attention_mask`` (same shape) is 0 there is padding, allowed on the left only. Without a mask, leading
    ``pad_token_id`` (None: there is none) counts as padding. Raises ConfigurationError.
    """
    kind, device = _kind(input_ids)
    ids = _matrix("input_ids", input_ids)
    if ids.size == 0:
        raise ConfigurationError(
            f"input_ids has shape {ids.shape}: at least one prompt of one token is needed"
        )
    if ids.min() < 0 or ids.max() >= vocab_size:
        wrong = ids[(ids < 0) | (ids >= vocab_size)][0]
        raise ConfigurationError(
            f"input_ids holds {wrong}: allowed are 0..{vocab_size - 1}, the model's vocabulary"
        )
    mask = _mask(attention_mask, ids, pad_token_id)
    if not mask.any(axis=1).all():
        empty = int(np.flatnonzero(~mask.any(axis=1))[0])
        raise ConfigurationError(f"row {empty} of attention_mask is 0 throughout: each prompt needs a token")
    if not mask[:, -1].all() or (np.diff(mask.astype(np.int8), axis=1) < 0).any():
        raise ConfigurationError(
            "attention_mask has a 0 right of a 1: only padding on the left is supported; "
            "use padding_side='left' in the tokenizer"
        )
    return Prompts(ids, mask, kind, device)


def _mask(attention_mask: Any, ids: Ids, pad: int | None) -> npt.NDArray[np.bool_]:
    if attention_mask is None:
        if pad is None:
            return np.ones(ids.shape, np.bool_)
        # Padding counts up to the first token that is none; a prompt of padding alone keeps its last one.
        mask: npt.NDArray[np.bool_] = np.maximum.accumulate(ids != pad, axis=1)
        mask[:, -1] = True
        return mask
    given = _matrix("attention_mask", attention_mask)
    if given.shape != ids.shape:
        raise ConfigurationError(
            f"attention_mask has shape {given.shape}, input_ids {ids.shape}: they must agree"
        )
    if not np.isin(given, (0, 1)).all():
        raise ConfigurationError("attention_mask holds values other than 0 and 1")
    return given.astype(np.bool_)


def _kind(value: Any) -> tuple[Kind, Any]:
    # A tensor can only come from a torch that is already imported.
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return "torch", value.device
    if isinstance(value, np.ndarray):
        return "numpy", None
    if isinstance(value, (list, tuple)):
        nested = bool(value) and not isinstance(value[0], (int, np.integer))
        return ("lists" if nested else "list"), None
    raise ConfigurationError(
        f"input_ids is a {type(value).__name__}: allowed are a torch tensor, a numpy array or lists of ids"
    )


def _matrix(name: str, value: Any) -> Ids:
    """(batch, width) int64 of a tensor, array or lists; a flat list is one row."""
    kind, _ = _kind(value)
    try:
        array = np.asarray(value.cpu().numpy() if kind == "torch" else value)
    except ValueError as error:
        raise ConfigurationError(
            f"{name} has rows of different lengths: pad them on the left and pass attention_mask"
        ) from error
    array = array[None, :] if kind == "list" and array.ndim == 1 else array
    if array.ndim != 2:
        raise ConfigurationError(f"{name} has shape {array.shape}: (batch, tokens) is needed")
    if array.size and array.dtype.kind not in "iub":
        raise ConfigurationError(f"{name} has dtype {array.dtype}: whole numbers are needed")
    return array.astype(np.int64)
