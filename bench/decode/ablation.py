"""What each idea behind DEL's default is worth: its variants on the real model and on planted ones.

    python -m bench.decode.ablation [--k 6 --k 12 --k 20] [--weights packed --weights bf16] [--policy NAME]...
        [--factor F] [--work FOLDER] [--every N] [--most-prompts N] [--tokens 128] [--rounds 1]

Every variant takes turns with plain decoding. Texts do not end early, and those of planted models (see
``planted_models.py``) go on from prompts without the chat template. Exits with 1 if any tokens differ from
plain decoding's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import specee

from ..progress import Meter
from . import planted_models, planted_task
from .contest_task import Task
from .interleaved import Bench
from .planted_task import KS

VARIANTS = (
    "del:faithful=true",
    "del:measured=false,sampled=false",
    "del:measured=false",
    "del:sampled=false",
    "del",
)
"""As published; tokens per layer against measured time, each with a full and with a sampled shadow pass."""
REAL = "real"


def measure(
    task: Task,
    *,
    work: Path,
    ks: Sequence[int] = KS,
    policies: Sequence[str] = VARIANTS,
    factor: float = planted_models.FACTOR,
) -> dict[str, Any]:
    """Compare on every model. Raises ConfigurationError for what is not allowed."""
    checkpoint = task.opened(policies)
    for k in ks:
        planted_models.check(checkpoint, k)
    kinds = task.kinds(checkpoint)
    chat, raw = (task.texts(checkpoint, task.files, raw=plain) for plain in (False, True))
    meter = Meter(
        Bench(None, task.tokens).work(len(chat), len(policies)) * len(kinds) * (1 + len(ks)), "token"
    )
    parts = []
    try:
        for name, source in _models(task.model, ks, work, factor):
            texts = chat if name == REAL else raw
            for weights in kinds:
                model = specee.load(source, weights=weights, backend="cpu", threads=task.threads)  # type: ignore[arg-type]
                bench = Bench(model, task.tokens)
                bench.warm_up(texts[0], policies)
                contest = bench.compare(texts, policies, meter)
                label = f"{name} {weights}"
                parts.append(contest.part(label, weights=weights))
                meter.say(label)
    finally:
        meter.close()
    return {
        "what": "variants of a policy, greedy decoding, batch 1, interleaved",
        **task.facts(checkpoint),
        "factor": factor,
        "parts": parts,
    }


def _models(
    source: str | None, ks: Sequence[int], work: Path, factor: float
) -> Iterator[tuple[str, str | Path | None]]:
    yield REAL, source
    for k in ks:
        yield f"k={k}", planted_models.planted(source, k, work, factor=factor)


if __name__ == "__main__":
    planted_task.main(__doc__, "ablation", VARIANTS, measure)
