"""Generation options: precedence, limits, and what is said about values without effect."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from specee.errors import ConfigurationError
from specee.options import NAMES, Options, resolve
from specee.types import Sampling


def options(defaults: dict | None = None, rows: int = 1, width: int = 5, **given: object) -> Options:
    return resolve({name: given.get(name) for name in NAMES}, defaults or {}, (2,), rows, width)


def test_defaults_are_those_of_transformers() -> None:
    plain = options()
    assert (plain.max_new_tokens, plain.temperature, plain.eos) == (20, 0.0, (2,))
    sampled = options(do_sample=True)
    assert (sampled.temperature, sampled.top_k, sampled.top_p) == (1.0, 50, 1.0)


def test_argument_beats_checkpoint_beats_default() -> None:
    defaults = {"do_sample": True, "temperature": 0.6, "top_k": 20, "max_new_tokens": 7}
    assert options(defaults).sampling(0).temperature == 0.6
    assert (options(defaults).top_k, options(defaults).max_new_tokens) == (20, 7)
    assert options(defaults, temperature=0.9, top_k=0).top_k == 0
    assert options(defaults, do_sample=False).temperature == 0.0
    assert options({"max_length": 30}).max_new_tokens == 25
    assert options({"max_length": 3}).max_new_tokens == 1


def test_filters_and_penalty_come_from_argument_checkpoint_default() -> None:
    assert (options().min_p, options().repetition_penalty) == (0.0, 1.0)
    defaults = {"do_sample": True, "min_p": 0.1, "repetition_penalty": 1.2}
    assert (options(defaults).min_p, options(defaults).repetition_penalty) == (0.1, 1.2)
    said = options(defaults, min_p=0, repetition_penalty=1)
    assert (said.min_p, said.repetition_penalty) == (0.0, 1.0)


def test_sampling_has_every_option() -> None:
    decided = options(
        do_sample=True, temperature=0.7, top_k=5, top_p=0.9, min_p=0.05, repetition_penalty=1.3,
        seed=[3, 4], rows=2,
    )  # fmt: skip
    assert decided.sampling(1) == Sampling(
        temperature=0.7, top_k=5, top_p=0.9, seed=4, min_p=0.05, repetition_penalty=1.3
    )


def test_the_penalty_counts_when_greedy_too() -> None:
    greedy = options(repetition_penalty=1.3).sampling(0)
    assert (greedy.temperature, greedy.repetition_penalty) == (0.0, 1.3)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [("END", ("END",)), (["a", "b", "a"], ("a", "b")), (("a",), ("a",)), ([], ()), (None, ("checkpoint",))],
)
def test_stop_strings_are_one_or_several(value: object, wanted: tuple[str, ...]) -> None:
    assert options({"stop_strings": ["checkpoint"]}, stop_strings=value).stop_strings == wanted


def test_acceptance_is_the_callers_alone() -> None:
    assert options().acceptance == "coupled"
    assert options({"acceptance": "rejection"}).acceptance == "coupled"
    assert options(do_sample=True, acceptance="rejection").acceptance == "rejection"


def test_callers_may_leave_names_out() -> None:
    assert resolve({"max_new_tokens": 3}, {}, (2,), 1, 5).max_new_tokens == 3


def test_temperature_zero_is_greedy() -> None:
    assert options(do_sample=True, temperature=0).temperature == 0.0


def test_seeds() -> None:
    assert options(do_sample=True, seed=5, rows=3).seeds == (5, 5, 5)
    assert options(do_sample=True, seed=np.int64(5), rows=1).seeds == (5,)
    assert options(do_sample=True, seed=[1, 2], rows=2).seeds == (1, 2)
    assert len(set(options(do_sample=True, rows=4).seeds)) == 4


@pytest.mark.parametrize("value", [7, [7, 9], (7, 9), np.array([7, 9])])
def test_eos_is_one_or_several(value: object) -> None:
    assert set(options(eos_token_id=value).eos) == ({7} if isinstance(value, int) else {7, 9})
    assert options(eos_token_id=[]).eos == ()
    assert options(eos_token_id=[9, 7]).eos == (9, 7)  # in order: the first one pads


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0), ("max_new_tokens", 1.5), ("max_new_tokens", True), ("temperature", -0.1),
        ("temperature", float("nan")), ("temperature", "hot"), ("temperature", float("inf")), ("top_k", -1),
        ("top_k", 2.0), ("top_p", 0), ("top_p", 1.01), ("do_sample", "yes"), ("seed", -1), ("seed", 2**64),
        ("seed", [1, 2]), ("seed", 0.5), ("eos_token_id", -1), ("eos_token_id", "</s>"),
        ("min_p", -0.1), ("min_p", 1.1), ("min_p", float("nan")), ("min_p", True), ("min_p", "small"),
        ("repetition_penalty", 0), ("repetition_penalty", -1.0), ("repetition_penalty", float("inf")),
        ("stop_strings", ""), ("stop_strings", ["a", ""]), ("stop_strings", 7), ("stop_strings", [b"a"]),
        ("acceptance", "typical"), ("acceptance", ""), ("acceptance", 1),
    ],
)  # fmt: skip
def test_wrong_values_name_themselves(name: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=name):
        options(**{"do_sample": True, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", 0.5), ("top_k", 5), ("top_p", 0.9), ("min_p", 0.1), ("seed", 1),
        ("acceptance", "rejection"),
    ],
)  # fmt: skip
def test_options_without_effect_are_mentioned(name: str, value: object) -> None:
    with pytest.warns(UserWarning, match=f"{name}: no effect.*only repetition_penalty counts"):
        options(**{name: value})


@pytest.mark.parametrize(
    "given",
    [
        {"temperature": 0}, {"min_p": 0.0}, {"acceptance": "coupled"}, {"repetition_penalty": 1.2},
        {"stop_strings": "a"}, {"do_sample": True, "min_p": 0.1, "acceptance": "rejection"},
    ],
)  # fmt: skip
def test_options_with_effect_are_not(given: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options(**given)


def test_checkpoint_options_that_are_not_applied_are_mentioned() -> None:
    with pytest.warns(UserWarning, match="no_repeat_ngram_size=3"):
        options({"no_repeat_ngram_size": 3})


def test_checkpoint_options_that_are_applied_are_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options({"repetition_penalty": 1.1, "min_p": 0.1, "stop_strings": ["a"]})
