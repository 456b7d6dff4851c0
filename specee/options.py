"""Options of a generation: what the caller said, else the checkpoint's defaults, else transformers'."""

from __future__ import annotations

import math
import numbers
import secrets
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from specee.acceptance import Acceptance
from specee.errors import ConfigurationError
from specee.types import Sampling

DEFAULT_NEW_TOKENS = 20
DEFAULT_TOP_K = 50

NAMES = (
    "max_new_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "eos_token_id",
    "stop_strings",
    "acceptance",
)
"""Options that :func:`resolve` knows; transformers has all but ``seed`` and ``acceptance``."""

# Options that say how a token is sampled, and the value of each that asks for what greedy decoding does
# anyway.
_SAMPLED: dict[str, Any] = {
    "temperature": 0,
    "top_k": None,
    "top_p": None,
    "min_p": 0,
    "seed": None,
    "acceptance": "coupled",
}

# Options of a generation_config.json that change what is generated, and the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_beams": (None, 1),
    "no_repeat_ngram_size": (None, 0),
    "typical_p": (None, 1.0),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
    "penalty_alpha": (None, 0.0),
    "bad_words_ids": (None, []),
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "min_new_tokens": (None, 0),
    "min_length": (None, 0),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "sequence_bias": (None,),
    "guidance_scale": (None, 1.0),
}


@dataclass(frozen=True)
class Options:
    """Everything decided.

    ``seeds`` has one entry a row; greedy if ``temperature`` is 0. A text ends with a token of ``eos``, or one
    that completes any of ``stop_strings``.
    """

    max_new_tokens: int
    temperature: float
    top_k: int
    top_p: float
    seeds: tuple[int, ...]
    eos: tuple[int, ...]
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    stop_strings: tuple[str, ...] = ()
    acceptance: Acceptance = "coupled"

    def sampling(self, row: int) -> Sampling:
        """How to draw the tokens of one row."""
        return Sampling(
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            seed=self.seeds[row],
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
        )


def resolve(
    given: Mapping[str, Any], defaults: Mapping[str, Any], eos_defaults: Iterable[int], rows: int, width: int
) -> Options:
    """Options for ``rows`` prompts padded to ``width``.

    ``given`` holds the arguments of ``generate`` (missing or None: not said), ``defaults`` the content of
    generation_config.json, which has no say in ``acceptance``. Sampling without a top_k from either uses
    50, as transformers does. Raises ConfigurationError for a value that is not allowed.
    """
    _warn_ineffective(given, defaults)

    def choose(name: str, otherwise: Any) -> Any:
        said = given.get(name)
        said = defaults.get(name) if said is None else said
        return otherwise if said is None else said

    sampled = choose("do_sample", False)
    if not isinstance(sampled, bool):
        raise ConfigurationError(f"do_sample={sampled!r}: allowed are True and False")
    temperature = _number(
        "temperature",
        choose("temperature", 1.0),
        "0 (greedy), or 1e-6 and more",
        lambda t: t == 0 or t >= 1e-6,
    )
    top_k = _whole("top_k", choose("top_k", DEFAULT_TOP_K), 0, "0 (off) or more")
    top_p = _number("top_p", choose("top_p", 1.0), "over 0 and up to 1", lambda p: 0 < p <= 1)
    min_p = _number("min_p", choose("min_p", 0.0), "from 0 (off) to 1", lambda p: 0 <= p <= 1)
    penalty = _number(
        "repetition_penalty",
        choose("repetition_penalty", 1.0),
        "from 0.001 to 1000; 1 is off",
        lambda r: 1e-3 <= r <= 1e3,
    )
    eos = given.get("eos_token_id")
    return Options(
        max_new_tokens=_whole("max_new_tokens", _budget(given, defaults, width), 1, "1 or more"),
        temperature=temperature if sampled else 0.0,
        top_k=min(top_k, 2**31 - 1),  # what native code counts with; no vocabulary is larger
        top_p=top_p,
        seeds=_seeds(given.get("seed"), rows),
        eos=_eos(tuple(eos_defaults) if eos is None else eos),
        min_p=min_p,
        repetition_penalty=penalty,
        stop_strings=_stop_strings(choose("stop_strings", ())),
        acceptance=_acceptance(given.get("acceptance")),
    )


def _budget(given: Mapping[str, Any], defaults: Mapping[str, Any], width: int) -> Any:
    """max_new_tokens: said, or the checkpoint's, or what its max_length leaves, or 20."""
    for value in (given.get("max_new_tokens"), defaults.get("max_new_tokens")):
        if value is not None:
            return value
    whole = defaults.get("max_length")
    return (
        DEFAULT_NEW_TOKENS if whole is None else max(1, _whole("max_length", whole, 1, "1 or more") - width)
    )


def _seeds(seed: Any, rows: int) -> tuple[int, ...]:
    """One seed a row: the one given for all, so that a row does not depend on its batch; random if none."""
    if seed is None:
        return tuple(secrets.randbits(63) for _ in range(rows))
    if isinstance(seed, numbers.Integral):
        seeds: list[Any] = [seed] * rows
    else:
        seeds = list(listed(seed))
    if len(seeds) != rows:
        raise ConfigurationError(
            f"seed has {len(seeds)} values for {rows} prompts: give one, or one a prompt"
        )
    limit = 2**64
    if any(not 0 <= _whole("seed", value, 0, f"0..{limit - 1}") < limit for value in seeds):
        raise ConfigurationError(f"seed={seed!r}: allowed are 0..{limit - 1}")
    return tuple(int(value) for value in seeds)


def _eos(value: Any) -> tuple[int, ...]:
    return tuple(_whole("eos_token_id", token, 0, "0 or more; [] for none") for token in listed(value))


def _stop_strings(value: Any) -> tuple[str, ...]:
    """One string or several, each once, in order."""
    texts = listed(value)
    if not all(isinstance(text, str) and text for text in texts):
        raise ConfigurationError(
            f"stop_strings={value!r}: allowed are one text or several, none of them empty; [] for none"
        )
    return tuple(dict.fromkeys(texts))


def _acceptance(value: Any) -> Acceptance:
    rules: tuple[Acceptance, ...] = get_args(Acceptance)
    for rule in rules:
        if value == rule:
            return rule
    if value is None:
        return rules[0]
    raise ConfigurationError(f"acceptance={value!r}: allowed are {', '.join(map(repr, rules))}")


def listed(value: Any) -> list[Any]:
    """A value or several, as a list; tensors and arrays become plain numbers."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return list(value) if isinstance(value, (list, tuple, set, frozenset, range)) else [value]


def _whole(name: str, value: Any, least: int, allowed: str) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or int(value) < least:
        raise ConfigurationError(f"{name}={value!r}: allowed are whole numbers, {allowed}")
    return int(value)


def _number(name: str, value: Any, allowed: str, test: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not math.isfinite(value)
        or not test(value)
    ):
        raise ConfigurationError(f"{name}={value!r}: allowed are numbers {allowed}")
    return float(value)


def _warn_ineffective(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Say what will not be done: neither the caller nor the checkpoint is ignored in silence."""
    sampled = given.get("do_sample")
    sampled = defaults.get("do_sample") if sampled is None else sampled
    idle = [
        name for name, greedy in _SAMPLED.items() if (said := given.get(name)) is not None and said != greedy
    ]
    if idle and not sampled:
        warnings.warn(
            f"{', '.join(idle)}: no effect without do_sample=True; decoding is greedy, and of all that "
            "shapes how tokens are drawn only repetition_penalty counts",
            stacklevel=5,
        )
    for name, neutral in _NEUTRAL.items():
        if defaults.get(name) not in neutral:
            warnings.warn(
                f"the checkpoint's generation_config.json asks for {name}={defaults[name]!r}, "
                "which specee does not apply",
                stacklevel=5,
            )
