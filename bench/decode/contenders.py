"""What is compared: each contender continues prompt ids by exactly n tokens, greedily, reporting to a clock.

A contender is named ``library[:part...]``, the parts in any order::

    specee[:cuda][:WEIGHTS][:POLICY[:SETTINGS]]
    transformers[:cuda][:lookup | :early-exit[:LAYER] | :static][:fp32]   plain and bf16 unless said otherwise
    llama.cpp                                                             the same GGUF file

``cuda`` runs it there, instead of on the CPU, with bf16 weights unless said otherwise. The first ``auto`` is
a kind of weights, but not there: the policy is ``specee:packed:auto``, or ``specee:cuda:auto``. Settings are
those of :func:`specee.policies.make_policy`, as in ``specee:packed:layerskip:exit_layer=27``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from specee.errors import BackendUnavailableError, ConfigurationError
from specee.integrations.stopwatch import Stopwatch
from specee.models.checkpoint import Checkpoint, open_checkpoint
from specee.policies import make_policy, policy_names

from . import rounds
from .rounds import Rounds

OURS = "specee"
WEIGHTS = ("auto", "packed", "bf16", "fp32", "int8", "int4")
DEFAULT = ("specee", "llama.cpp", "transformers", "transformers:lookup", "transformers:early-exit")
ON_DEVICE = ("specee:cuda", "specee:cuda:auto", "transformers:cuda", "transformers:cuda:static")


class Run(Protocol):
    """Continue ``prompt`` by ``tokens`` tokens, telling ``clock`` as they come out.

    Ours also gives what it drafted; of others nothing is known but when tokens came out.
    """

    def __call__(self, prompt: list[int], tokens: int, clock: Stopwatch) -> Rounds | None: ...


@dataclass(frozen=True)
class Setting:
    """The same for all contenders of a run; ``capacity`` bounds prompt and new tokens together.

    ``shared`` keeps what several contenders use, such as one model for three ways of decoding.
    """

    source: str | None
    threads: int
    capacity: int
    shared: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def checkpoint(self) -> Checkpoint:
        """Opened when it is needed: ours opens its own, and a second one would count as its memory."""
        return open_checkpoint(self.source)


@dataclass(frozen=True)
class Contender:
    """One that is loaded. ``facts`` go into the result, with what is known ``later``.

    ``backend`` is ours alone.
    """

    name: str
    run: Run
    facts: dict[str, Any]
    backend: Any = None
    later: Callable[[], dict[str, Any]] = dict

    @property
    def is_ours(self) -> bool:
        return self.backend is not None


def prepare(name: str, setting: Setting) -> Contender:
    """Load a contender. Raises what :func:`check` raises."""
    check(name)
    library, *parts = name.split(":")
    return _LIBRARIES[library][1](name, parts, setting)


def check(name: str) -> None:
    """Import what a contender needs.

    Raises ConfigurationError for a name that means nothing, BackendUnavailableError for what is missing.
    """
    library, *parts = name.split(":")
    if library not in _LIBRARIES:
        raise ConfigurationError(f"contender {name!r}: allowed are {', '.join(_LIBRARIES)}, with their parts")
    _LIBRARIES[library][0](name, parts)


def usable(names: tuple[str, ...]) -> tuple[list[str], dict[str, str]]:
    """Those of ``names`` that can run here, and why the others cannot. Raises ConfigurationError."""
    good, missing = [], {}
    for name in names:
        try:
            check(name)
            good.append(name)
        except BackendUnavailableError as error:
            missing[name] = str(error)
    return good, missing


class _Ours(NamedTuple):
    weights: str
    policy: str
    device: str


def _ours_parts(name: str, parts: list[str]) -> _Ours:
    """Weights, policy and device; settings, with a "=", belong to the policy before them."""
    weights, policy, settings = None, None, []
    device = "cuda" if "cuda" in parts else "cpu"
    if "cuda" in parts:
        parts = [*parts]
        parts.remove("cuda")
    kinds = ("bf16", "int8", "int4") if device == "cuda" else WEIGHTS
    for part in parts:
        if part in kinds and weights is None:
            weights = part
        elif part in policy_names() and policy is None:
            policy = part
        elif "=" in part and policy is not None:
            settings.append(part)
        else:
            allowed = ", ".join(("cuda", *kinds, *policy_names()))
            raise ConfigurationError(
                f"contender {name!r}: {part!r} is none of {allowed}, each of device, weights and policy "
                "once, and key=value,... after a policy's name"
            )
    chosen = ":".join([policy or "autoregressive", *([",".join(settings)] if settings else [])])
    try:
        make_policy(chosen)
    except ConfigurationError as error:
        raise ConfigurationError(f"contender {name!r}: {error}") from error
    return _Ours(weights or ("bf16" if device == "cuda" else "auto"), chosen, device)


def _check_ours(name: str, parts: list[str]) -> None:
    from specee.backends import missing

    device = _ours_parts(name, parts).device
    if reason := missing(device):
        raise BackendUnavailableError(
            f"the {device} backend is what is measured, and it is missing: {reason}"
        )


def _ours(name: str, parts: list[str], setting: Setting) -> Contender:
    import specee

    weights, policy, device = _ours_parts(name, parts)
    model = specee.load(
        setting.source, weights=weights, device=device, backend=device, threads=setting.threads
    )
    backend: Any = model.backend
    # A wrong exit layer is found before anything is timed.
    model.check_policy(policy)

    def run(prompt: list[int], tokens: int, clock: Stopwatch) -> Rounds:
        result = model.generate(
            [prompt],
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=[],
            streamer=clock,
            policy=policy,
            return_dict=True,
        )
        return rounds.of(result.statistics)

    facts = {
        "weights": backend.weights,
        "policy": policy,
        "weight_bytes": backend.weight_bytes,
    }
    if device == "cpu":  # whose bandwidth is measured beside it
        facts |= {"isa": backend.isa, "bytes_per_token": backend.step_bytes}
        return Contender(name, run, facts, backend)
    facts |= {"device": device_name()}
    return Contender(name, run, facts, backend, lambda: {"graphs_missing": backend.graphs_missing})


def device_name() -> str:
    """Of torch's current CUDA device."""
    import torch

    return str(torch.cuda.get_device_name())


def _transformers(name: str, parts: list[str], setting: Setting) -> Contender:
    from .transformers_peer import Method, prepare_transformers

    run, facts = prepare_transformers(Method.parse(name, parts), setting)
    return Contender(name, run, facts)


def _check_transformers(name: str, parts: list[str]) -> None:
    from .transformers_peer import Method

    method = Method.parse(name, parts)
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise BackendUnavailableError(
            f'{name} is not installed: pip install "specee[hf]" ({error})'
        ) from error
    if method.device == "cuda" and not torch.cuda.is_available():
        raise BackendUnavailableError(f"{name}: this torch finds no device; use one that is built with CUDA")


def _llama(name: str, parts: list[str], setting: Setting) -> Contender:
    from .llama_peer import LlamaCpp

    return Contender(name, LlamaCpp(setting), {"weights": "the GGUF file's"})


def _check_llama(name: str, parts: list[str]) -> None:
    if parts:
        raise ConfigurationError(
            f"contender {name!r}: llama.cpp has no parts; it uses the GGUF file as it is"
        )
    try:
        import llama_cpp  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:  # a build for another machine fails in its own ways
        raise BackendUnavailableError(
            f'{name} is not installed: pip install "specee[peers]" ({error})'
        ) from error


_Check = Callable[[str, list[str]], None]
_Prepare = Callable[[str, list[str], Setting], Contender]
_LIBRARIES: dict[str, tuple[_Check, _Prepare]] = {
    OURS: (_check_ours, _ours),
    "transformers": (_check_transformers, _transformers),
    "llama.cpp": (_check_llama, _llama),
}
