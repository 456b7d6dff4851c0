"""Fetch a model folder from the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path

from specee.errors import DownloadError

_WANTED = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)


def fetch_from_hub(name: str) -> Path:
    """Folder of hub model ``name`` (``owner/name``): from the hub's cache, downloaded if necessary.

    Raises DownloadError if it is neither cached nor reachable.
    """
    import huggingface_hub

    try:
        # Weights in sub-folders, and those not called model*, are other formats of the same model.
        folder = huggingface_hub.snapshot_download(
            name, allow_patterns=list(_WANTED), ignore_patterns=["*/*"]
        )
    except Exception as error:  # connection, authentication, unknown name, full disk: all mean "no model"
        raise DownloadError(
            f"hub model {name!r} is not in the cache and could not be fetched "
            f"({type(error).__name__}: {error}). Check the name and the network, "
            "or download the model elsewhere and pass its local folder."
        ) from error
    return Path(folder)
