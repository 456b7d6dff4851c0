"""Whether policies ever cost: tokens a second over those of plain decoding, prompt file by prompt file.

    python -m bench.decode.regret [--prompts FILE]... [--weights packed --weights bf16] [--policy NAME]...
        [--every N] [--most-prompts N] [--tokens 128] [--rounds 1] [--no-speculator]

By default ``del`` and ``auto`` on the project's own prompts. Those whose answers copy come after the files
named, prompt lookup beside the policies; several other files are also added up. Texts end where the model
ends them. A request's time has the prompt's in it, and so what a policy looks at there. Exits with 1 if any
tokens differ from plain decoding's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import options as common
from .. import prompts
from ..progress import Meter
from . import contest_task
from .contest_task import Task
from .interleaved import Bench, merged

POLICIES = ("del", "auto")
LOOKUP = "prompt-lookup"


def measure(task: Task, policies: Sequence[str] = POLICIES) -> dict[str, Any]:
    """Compare and sum up. Raises ConfigurationError for what is not allowed."""
    checkpoint = task.opened(policies)
    kinds = task.kinds(checkpoint)
    files = {path: task.texts(checkpoint, [path]) for path in task.files}
    contenders = {path: beside(path, policies) for path in files}
    planned = Bench(None, task.tokens, ends=True)
    total = sum(planned.work(len(texts), len(contenders[path])) for path, texts in files.items())
    meter = Meter(len(kinds) * total, "token")
    parts = []
    try:
        for weights in kinds:
            model = task.loaded(weights)
            bench = Bench(model, task.tokens, ends=True)
            ordinary = []
            for path, texts in files.items():
                bench.warm_up(texts[0], contenders[path])
                contest = bench.compare(texts, contenders[path], meter)
                label = f"{path.stem} {weights}"
                parts.append(contest.part(label, file=path.name, weights=weights))
                meter.say(label)
                ordinary += [contest] if path != prompts.COPYING else []
            if len(ordinary) > 1:
                parts.append(merged(ordinary).part(f"all {weights}", weights=weights))
    finally:
        meter.close()
    return {
        "what": "policies beside plain decoding, greedy decoding, batch 1, interleaved",
        **task.facts(checkpoint),
        "fitted": task.fitted,
        "parts": parts,
    }


def beside(path: Path, policies: Sequence[str]) -> list[str]:
    """What is measured on a file of prompts."""
    also = [LOOKUP] if path == prompts.COPYING else []
    return list(dict.fromkeys([*policies, *also]))


def main() -> None:
    """Run and save."""
    parser = contest_task.parser(__doc__, POLICIES)
    parser.add_argument(
        "--no-speculator",
        dest="fitted",
        action="store_false",
        help="without the parts that come with the package for this model",
    )
    options = common.parse(parser)
    options.prompts = [*(options.prompts or [prompts.OWN]), prompts.COPYING]
    result = measure(replace(contest_task.task(options), fitted=options.fitted), options.policy or POLICIES)
    contest_task.finish(options, "regret", result)


if __name__ == "__main__":
    main()
