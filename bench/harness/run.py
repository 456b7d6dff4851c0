"""lm-evaluation-harness on a transformers model, by its own ``HFLM`` and ``simple_evaluate``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specee.errors import BackendUnavailableError

FOLDER = Path(__file__).parent
TASK = "specee_copy_and_add"


@dataclass(frozen=True)
class Graded:
    """What a model said to each question, and the share of answers that are right."""

    answers: list[str]
    exact_match: float


def is_installed() -> bool:
    """Whether the harness and what it needs for transformers models are there."""
    try:
        import lm_eval.models.huggingface  # noqa: F401
    except ImportError:
        return False
    return True


def evaluate(model: Any, tokenizer: Any, *, rows: int = 1) -> Graded:
    """Have ``model`` answer the task's questions, ``rows`` in a call.

    Raises BackendUnavailableError without the harness.
    """
    if not is_installed():
        raise BackendUnavailableError('lm-evaluation-harness is needed: pip install "specee[harness]"')
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    with _beside_the_task():
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=rows),
            tasks=[TASK],
            task_manager=TaskManager(include_path=str(FOLDER), include_defaults=False),
            bootstrap_iters=0,
            log_samples=True,
        )
    samples = sorted(found["samples"][TASK], key=lambda sample: sample["doc_id"])
    return Graded(
        [str(sample["filtered_resps"][0]) for sample in samples],
        float(found["results"][TASK]["exact_match,none"]),
    )


@contextlib.contextmanager
def _beside_the_task() -> Iterator[None]:
    """In the folder that the task's file is relative to; nothing is looked up elsewhere."""
    before = Path.cwd()
    os.chdir(FOLDER)
    try:
        yield
    finally:
        os.chdir(before)
