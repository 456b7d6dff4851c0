"""Faster decoding of causal language models by speculative early exit.

::

    import specee

    model = specee.load()
    print(model.generate_text("What is the capital of France?", max_new_tokens=32))
"""

from specee._version import __version__
from specee.chat import Chat
from specee.engine import Generation
from specee.errors import (
    BackendUnavailableError,
    CapacityError,
    CheckpointError,
    ConfigurationError,
    DownloadError,
    FallbackWarning,
    KernelArgumentError,
    NumericalError,
    OutOfMemoryError,
    RowError,
    SpeceeError,
    UnsupportedModelError,
)
from specee.fitting.entry import fit, import_eagle
from specee.integrations.entry import (
    accelerate,
    as_tokenizer,
    as_transformers,
    custom_generate,
    refresh,
    restore,
)
from specee.model import Model, load
from specee.result import GenerationResult
from specee.types import ModelConfig, Sampling

__all__ = [
    "BackendUnavailableError",
    "CapacityError",
    "Chat",
    "CheckpointError",
    "ConfigurationError",
    "DownloadError",
    "FallbackWarning",
    "Generation",
    "GenerationResult",
    "KernelArgumentError",
    "Model",
    "ModelConfig",
    "NumericalError",
    "OutOfMemoryError",
    "RowError",
    "Sampling",
    "SpeceeError",
    "UnsupportedModelError",
    "__version__",
    "accelerate",
    "as_tokenizer",
    "as_transformers",
    "custom_generate",
    "fit",
    "import_eagle",
    "load",
    "refresh",
    "restore",
]
