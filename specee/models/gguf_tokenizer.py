"""GGUF metadata -> Tokenizer: the tokenizer that was published with the model, rebuilt.

Two kinds: ``gpt2``, byte-level BPE whose way to split text is named by ``tokenizer.ggml.pre``, and
``llama``, SentencePiece BPE with scores and byte fallback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from specee.errors import CheckpointError, UnsupportedModelError
from specee.models.gguf_header import GGUFHeader
from specee.models.tokenizer import SpecialTokens
from specee.models.tokenizer import Tokenizer as SpeceeTokenizer

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_SPACE = "\u2581"

_LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_SPLIT = _LLAMA3_SPLIT.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class PreTokenizer:
    """How a byte-level vocabulary splits text before merging.

    ``split`` is a regular expression whose matches are pieces, None for GPT-2's. ``digits`` cuts
    every digit off first, on its own. ``nfc`` composes Unicode. ``whole_words`` takes a piece that
    is in the vocabulary as one token even if no merges lead there. ``add_bos`` holds where the file
    has no flag.
    """

    split: str | None = None
    digits: bool = False
    nfc: bool = False
    whole_words: bool = False
    add_bos: bool = False


_GPT2 = PreTokenizer()
_DIGITS = PreTokenizer(digits=True)
_LLAMA3 = PreTokenizer(_LLAMA3_SPLIT, whole_words=True, add_bos=True)
_QWEN2 = PreTokenizer(_QWEN2_SPLIT, nfc=True)
PRE_TOKENIZERS: Mapping[str, PreTokenizer] = {
    "default": _GPT2,
    "gpt-2": _GPT2,
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": PreTokenizer(_TEKKEN_SPLIT, whole_words=True, add_bos=True),
}


def tokenizer_from_gguf(header: GGUFHeader) -> SpeceeTokenizer | None:
    """The tokenizer described by ``tokenizer.ggml.*``, None if the file has none.

    Raises UnsupportedModelError for an unknown kind or pre-tokenizer (guessing would give wrong
    ids silently) and CheckpointError for a damaged vocabulary.
    """
    settings = _Settings(header.metadata, header.path)
    kind = settings.get("model")
    if kind in (None, "no_vocab", "none"):
        return None
    if kind not in ("gpt2", "llama"):
        raise UnsupportedModelError(
            f"{header.path}: tokenizer.ggml.model {kind!r} is not supported; 'gpt2' and 'llama' are."
        )
    try:
        backend = _byte_level(settings) if kind == "gpt2" else _sentencepiece(settings)
    except (CheckpointError, UnsupportedModelError):
        raise
    except Exception as error:  # the library raises bare Exception for merges outside the vocabulary
        raise CheckpointError(
            f"{header.path}: tokenizer vocabulary and merges do not fit: {error}."
        ) from error
    _add_special(backend, settings)
    special = SpecialTokens(
        bos_token=settings.token("bos"),
        eos_token=settings.token("eos"),
        pad_token=settings.token("padding"),
        unk_token=settings.token("unknown"),
    )
    add_bos = settings.get("add_bos_token", kind == "llama" or _pre_tokenizer(settings).add_bos)
    _add_ends(backend, special, add_bos=bool(add_bos), add_eos=bool(settings.get("add_eos_token", False)))
    template = header.metadata.get("tokenizer.chat_template")
    return SpeceeTokenizer(backend, special, template if isinstance(template, str) else None)


class _Settings:
    """``tokenizer.ggml.*`` with the vocabulary checked."""

    def __init__(self, metadata: Mapping[str, Any], path: Path) -> None:
        self._metadata, self.path = metadata, path

    def get(self, key: str, default: Any = None) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}", default)

    @property
    def tokens(self) -> list[str]:
        tokens = self.get("tokens")
        if not isinstance(tokens, list) or not tokens or len(set(tokens)) != len(tokens):
            raise CheckpointError(
                f"{self.path}: tokenizer.ggml.tokens must be a list of different strings. "
                "Fetch the file again."
            )
        return tokens

    def per_token(self, key: str, default: float) -> Sequence[float]:
        """A number for each token."""
        count, values = len(self.tokens), self.get(key)
        if values is None:
            return [default] * count
        if len(values) != count or isinstance(values, (str, list)):
            raise CheckpointError(
                f"{self.path}: tokenizer.ggml.{key} must hold {count} numbers, one for each token."
            )
        numbers: list[float] = values.tolist()
        return numbers

    def merges(self) -> list[tuple[str, str]] | None:
        merges = self.get("merges")
        if merges is None:
            return None
        pairs = [tuple(merge.split(" ")) for merge in merges]
        for pair in pairs:
            if len(pair) != 2:
                raise CheckpointError(f"{self.path}: merge {' '.join(pair)!r} is not a pair of tokens.")
        return [(left, right) for left, right in pairs]

    def token(self, role: str) -> str | None:
        index = self.get(f"{role}_token_id")
        if index is None:
            return None
        if not isinstance(index, int) or not 0 <= index < len(self.tokens):
            raise CheckpointError(
                f"{self.path}: tokenizer.ggml.{role}_token_id is {index!r}; it must be an id from 0 to "
                f"{len(self.tokens) - 1}."
            )
        return self.tokens[index]


def _vocabulary(settings: _Settings) -> dict[str, int]:
    return {token: index for index, token in enumerate(settings.tokens)}


def _pre_tokenizer(settings: _Settings) -> PreTokenizer:
    name = settings.get("pre", "default")
    if name not in PRE_TOKENIZERS:
        raise UnsupportedModelError(
            f"{settings.path}: tokenizer.ggml.pre {name!r} is not supported; supported are "
            f"{', '.join(PRE_TOKENIZERS)}. Use the safetensors checkpoint with its tokenizer.json."
        )
    return PRE_TOKENIZERS[name]


def _byte_level(settings: _Settings) -> Tokenizer:
    pre, merges = _pre_tokenizer(settings), settings.merges()
    if merges is None:
        raise CheckpointError(f"{settings.path}: tokenizer.ggml.merges is missing. Fetch the file again.")
    backend = Tokenizer(models.BPE(vocab=_vocabulary(settings), merges=merges, ignore_merges=pre.whole_words))
    steps: list[Any] = [pre_tokenizers.Digits(individual_digits=True)] if pre.digits else []
    if pre.split is not None:
        steps.append(pre_tokenizers.Split(Regex(pre.split), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pre.split is None))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    if pre.nfc:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(settings: _Settings) -> Tokenizer:
    vocabulary = _vocabulary(settings)
    merges = settings.merges()
    if merges is None:
        merges = _merges_from_scores(settings, vocabulary)
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=merges,
            unk_token=settings.token("unknown"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefix = bool(settings.get("add_space_prefix", True))
    spaces = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces] if prefix else [spaces])
    steps: list[Any] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _merges_from_scores(settings: _Settings, vocabulary: Mapping[str, int]) -> list[tuple[str, str]]:
    """Merges in the order SentencePiece applies them: best score of the result first."""
    found: list[tuple[float, int, str, str]] = []
    pieces = zip(
        settings.tokens, settings.per_token("scores", 0.0), settings.per_token("token_type", 1), strict=True
    )
    for index, (piece, score, kind) in enumerate(pieces):
        if kind != _NORMAL:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                found.append((-score, index, left, right))
    return [(left, right) for _, _, left, right in sorted(found, key=lambda item: item[:2])]


def _add_special(backend: Tokenizer, settings: _Settings) -> None:
    """Tokens that are matched whole in the text; control tokens can be skipped when decoding."""
    kinds = settings.per_token("token_type", _NORMAL)
    marked = [(token, kind) for token, kind in zip(settings.tokens, kinds, strict=True) if token]
    control = [
        AddedToken(token, normalized=False, special=True) for token, kind in marked if kind == _CONTROL
    ]
    user = [AddedToken(token, normalized=False) for token, kind in marked if kind == _USER_DEFINED]
    backend.add_special_tokens(control)
    backend.add_tokens(user)


def _add_ends(backend: Tokenizer, special: SpecialTokens, *, add_bos: bool, add_eos: bool) -> None:
    begin = [special.bos_token] if add_bos and special.bos_token is not None else []
    end = [special.eos_token] if add_eos and special.eos_token is not None else []
    if begin or end:
        backend.post_processor = processors.TemplateProcessing(
            single=[*begin, "$A", *end],
            special_tokens=[(token, backend.token_to_id(token)) for token in dict.fromkeys(begin + end)],
        )
