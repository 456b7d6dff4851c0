"""llama.cpp through llama-cpp-python, driven as fast as it goes.

The loop is ``llama_decode``, then llama.cpp's own greedy sampler, called through ctypes; end-of-text tokens
are tokens like any other in it. ``Llama.generate(top_k=1)`` was also tried and gave up to 8 % fewer tokens a
second on SmolLM2-135M, an argmax in numpy over the logits the same. Flash attention on was up to 7 % faster
than off; ``n_ubatch`` of 64, 128 and 512 made no difference to decoding, and 512, the default, read prompts
fastest. Weights are repacked for the processor where llama.cpp has a layout for their type (on by default).
"""

from __future__ import annotations

import logging
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from specee.errors import CheckpointError, ConfigurationError
from specee.integrations.stopwatch import Stopwatch

from .contenders import Setting

_FLASH_ATTENTION_ON = 1


def gguf_path(source: str | None) -> Path:
    """The GGUF file of a source. Raises ConfigurationError if it is none."""
    if source is None:
        from specee.models.default_model import default_model_path

        path = default_model_path()
    else:
        path = Path(source)
    if not path.is_file():
        raise ConfigurationError(f"llama.cpp reads GGUF files and {path} is none: leave llama.cpp out")
    return path


class LlamaCpp:
    """A model and a context with room for ``setting.capacity`` positions."""

    def __init__(self, setting: Setting) -> None:
        import llama_cpp

        self._llama: Any = llama_cpp
        logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)
        path = gguf_path(setting.source)
        self._llama.llama_backend_init()
        model = self._llama.llama_model_load_from_file(
            str(path).encode(), self._llama.llama_model_default_params()
        )
        if not model:
            raise CheckpointError(
                f"{path}: llama.cpp cannot load it; leave llama.cpp out or take another file"
            )
        settings = self._llama.llama_context_default_params()
        settings.n_ctx = -(-setting.capacity // 256) * 256
        settings.n_threads = settings.n_threads_batch = setting.threads
        settings.flash_attn_type = _FLASH_ATTENTION_ON
        settings.type_k = settings.type_v = self._llama.GGML_TYPE_F16
        self._context = self._llama.llama_init_from_model(model, settings)
        if not self._context:
            raise CheckpointError(f"{path}: llama.cpp makes no context of {settings.n_ctx} positions for it")
        self._sampler = self._llama.llama_sampler_init_greedy()
        self._batch: int = settings.n_batch
        weakref.finalize(self, _free, self._llama, self._sampler, self._context, model)

    def __call__(self, prompt: list[int], tokens: int, clock: Stopwatch) -> None:
        """See :class:`.contenders.Run`."""
        clock.put(np.array(prompt))
        self._llama.llama_memory_clear(self._llama.llama_get_memory(self._context), True)
        for begin in range(0, len(prompt), self._batch):
            self._decode(prompt[begin : begin + self._batch])
        for made in range(1, tokens + 1):
            token = self._llama.llama_sampler_sample(self._sampler, self._context, -1)
            clock.put(np.array([token]))
            if made < tokens:
                self._decode([token])

    def _decode(self, ids: list[int]) -> None:
        array = (self._llama.llama_token * len(ids))(*ids)
        code = self._llama.llama_decode(self._context, self._llama.llama_batch_get_one(array, len(ids)))
        if code != 0:
            raise RuntimeError(f"llama_decode of {len(ids)} tokens failed with code {code}")


def _free(llama: Any, sampler: Any, context: Any, model: Any) -> None:
    llama.llama_sampler_free(sampler)
    llama.llama_free(context)
    llama.llama_model_free(model)
