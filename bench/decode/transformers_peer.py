"""transformers' ``generate``, plain and with its two ways of drafting without a second model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from specee.errors import ConfigurationError
from specee.integrations.stopwatch import Stopwatch

from .contenders import Run, Setting, device_name

LOOKUP_TOKENS = 10  # transformers' own default for prompt lookup
_COMPILED = 8  # tokens, of the longest text, for which a step is compiled


@dataclass(frozen=True)
class Method:
    """How ``generate`` decodes. ``layer`` is that of early-exit, None for half of the model's.

    ``static`` is a cache of fixed size, with which transformers compiles a step where it is on a device.
    """

    kind: str = "plain"
    layer: int | None = None
    weights: str = "bf16"
    device: str = "cpu"

    @classmethod
    def parse(cls, name: str, parts: list[str]) -> Method:
        """The method that the parts of a contender's name mean. Raises ConfigurationError."""
        found: dict[str, Any] = {}
        for part in parts:
            if part in ("plain", "lookup", "early-exit", "static"):
                key, value = "kind", part
            elif part in ("bf16", "fp32"):
                key, value = "weights", part
            elif part == "cuda":
                key, value = "device", part
            elif part.isdecimal() and int(part) > 0 and found.get("kind") == "early-exit":
                key, value = "layer", int(part)
            else:
                key, value = part, None
            if value is None or key in found:
                raise ConfigurationError(
                    f"contender {name!r}: {part!r} is not understood; allowed are "
                    "transformers[:cuda][:plain | :lookup | :early-exit[:LAYER] | :static][:bf16 | :fp32]"
                )
            found[key] = value
        return cls(**found)

    def arguments(self, layers: int) -> dict[str, Any]:
        """What ``generate`` needs to be told. Raises ConfigurationError for a layer that is not there."""
        if self.kind == "lookup":
            return {"prompt_lookup_num_tokens": LOOKUP_TOKENS}
        if self.kind == "static":
            return {"cache_implementation": "static"}
        if self.kind == "plain":
            return {}
        layer = layers // 2 if self.layer is None else self.layer
        if not 1 <= layer < layers:
            raise ConfigurationError(
                f"early-exit:{layer}: allowed are 1..{layers - 1}, the model's layers but one"
            )
        return {"assistant_early_exit": layer}


def prepare_transformers(method: Method, setting: Setting) -> tuple[Run, dict[str, Any]]:
    """A contender's run and facts; those with the same weights share one model."""
    import torch

    arguments = method.arguments(setting.checkpoint.config.num_layers)
    torch.set_num_threads(setting.threads)
    model = _shared_model(setting, method)

    def run(prompt: list[int], tokens: int, clock: Stopwatch) -> None:
        ids = torch.tensor([prompt], device=method.device)
        model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            streamer=clock,
            **arguments,
        )

    if method.kind == "static" and method.device != "cpu":
        # A step is compiled for a cache of the longest text so far: that is not to be timed.
        run([1] * max(setting.capacity - _COMPILED, 1), min(_COMPILED, setting.capacity - 1), Stopwatch())
    on = {} if method.device == "cpu" else {"device": device_name()}
    return run, {"weights": method.weights, **on, **arguments}


def _shared_model(setting: Setting, method: Method) -> Any:
    from specee.integrations.transformers_model import to_transformers

    key = f"transformers:{method.weights}:{method.device}"
    if key not in setting.shared:
        made = to_transformers(setting.checkpoint, "fp32" if method.weights == "fp32" else "bf16")
        model: Any = made.to(method.device)
        model.generation_config.eos_token_id = None  # every run has the same number of tokens
        setting.shared[key] = model
    return setting.shared[key]
