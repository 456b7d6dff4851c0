"""How often fitted drafter blocks are right: their drafts against what plain decoding continues prompts with.

    python -m bench.decode.drafters [--speculator FILE]... [--prompts FILE]... [--weights packed]
        [--every N] [--most-prompts N] [--tokens 128]

By default the package's own file for the model. Drafts are those of a chain whose text so far is right, at
every position that the model wrote, computed in torch in bf16, before the block is stored in 8 or 4 bits.
Files that ``specee fit --snapshots`` leaves make a curve: each says how many tokens it was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import specee
from specee.errors import ConfigurationError
from specee.models import packaged
from specee.models.checkpoint import Checkpoint
from specee.models.drafter_parts import DrafterParts
from specee.models.speculator import fingerprint, read_speculator
from specee.types import ModelConfig

from .. import options as common
from ..progress import Meter
from . import contest_task
from .batches import chunks, continued
from .contest_task import Task

TOGETHER = 8  # prompts continued at a time
CHAIN = 3


def measure(task: Task, named: Sequence[Path] = ()) -> dict[str, Any]:
    """Agreement by file. Raises ConfigurationError, CheckpointError for a file of another model."""
    import torch

    from specee.fitting.corpus import Text
    from specee.fitting.drafter import Drafter
    from specee.fitting.frozen import read_frozen
    from specee.fitting.judging import Judge

    checkpoint = task.opened(())
    (weights,) = task.kinds(checkpoint)
    mark = fingerprint(checkpoint.config, checkpoint.norms())
    speculators = {path: _read(path, checkpoint.config, mark) for path in named or _own(checkpoint)}
    model = specee.load(task.model, weights=weights, backend="cpu", threads=task.threads, speculator=False)  # type: ignore[arg-type]
    prompts = task.texts(checkpoint, task.files)
    meter = Meter(len(prompts) * (1 + len(speculators)), "text")
    texts = []
    for chosen in chunks(0, len(prompts), TOGETHER):
        found = continued(model, prompts, chosen, "greedy", "autoregressive", task.tokens)
        texts += [
            Text(np.array([*prompts[index], *new], np.int32), len(prompts[index]))
            for index, new in zip(chosen, found.tokens, strict=True)
        ]
        meter.advance(len(chosen))
    frozen = read_frozen(model.checkpoint, model.backend.weights)
    judge = Judge(model.backend, frozen, texts)
    drafters = []
    for path, (block, vocabulary) in speculators.items():
        ids = torch.from_numpy(vocabulary)
        agreement = judge.agreement(Drafter.of(block, model.config), ids, CHAIN)
        written = np.concatenate([text.tokens[text.begin :] for text in texts])
        drafters.append(
            {
                "file": path.name,
                "trained_tokens": trained_tokens(path),
                "vocabulary": len(ids),
                "coverage": float(np.isin(written, vocabulary).mean()),
                "agreement": agreement,
            }
        )
        meter.advance(len(texts))
        meter.say(f"{path.name}: {agreement[0]:.3f}")
    meter.close()
    return {
        "what": "drafts of a chain that are the token of greedy decoding, in bf16",
        **task.facts(checkpoint),
        "weights": weights,
        "texts": len(texts),
        "tokens": sum(len(text.tokens) - text.begin for text in texts),
        "drafters": sorted(drafters, key=lambda one: one["trained_tokens"] or 0),
    }


def _own(checkpoint: Checkpoint) -> list[Path]:
    path = packaged.packaged_file(checkpoint)
    if path is None:
        raise ConfigurationError(
            f"no speculator file comes with the package for {checkpoint.source}: name one"
        )
    return [path]


def _read(path: Path, config: ModelConfig, mark: str) -> tuple[DrafterParts, npt.NDArray[np.int64]]:
    speculator = read_speculator(path, config, mark)
    if speculator.drafter is None or speculator.vocabulary is None:
        raise ConfigurationError(f"{path} has no drafter block with a vocabulary: name files that have")
    return speculator.drafter, speculator.vocabulary


def trained_tokens(path: Path) -> int | None:
    """What a file says it was trained on, a token counted as often as it was seen."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        said = json.loads((file.metadata() or {}).get("fit", "{}"))
    return said.get("trained")


def main() -> None:
    """Run and save."""
    parser = contest_task.parser(__doc__, ())
    parser.add_argument("--speculator", type=Path, action="append", help="may be given again")
    options = common.parse(parser)
    if len(set(options.weights or ["auto"])) > 1:
        parser.error("--weights: states of one format are read, name one")
    task = contest_task.task(options)
    common.finish(options, "drafters", measure(task, options.speculator or ()))


if __name__ == "__main__":
    main()
