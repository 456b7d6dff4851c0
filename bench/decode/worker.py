"""Contenders in processes of their own, asked in turns, so that thread pools and allocators do not meet.

A worker reads one JSON line a question from stdin and answers with one on what was its stdout. Every
contender of ours has a worker to itself; those of another library share one, and with it their model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import IO, Any

from specee.errors import SpeceeError
from specee.integrations.stopwatch import Stopwatch

from . import contenders
from .contenders import OURS, Contender, Setting
from .rounds import Rounds


@dataclass(frozen=True)
class Sample:
    """One contender on one prompt: seconds to the first token, the rate after it, and in how many steps.

    ``rounds`` is ours alone.
    """

    first_s: float
    tokens_s: float
    steps: int
    tokens: tuple[int, ...]
    rounds: Rounds | None = None

    @classmethod
    def read(cls, answer: dict[str, Any]) -> Sample:
        """From JSON's kinds."""
        rounds = Rounds(**answer["rounds"]) if answer["rounds"] else None
        return cls(**{**answer, "tokens": tuple(answer["tokens"]), "rounds": rounds})


class WorkerError(SpeceeError, RuntimeError):
    """A contender failed in its process."""


class Remote:
    """A contender in a worker."""

    def __init__(self, name: str, facts: dict[str, Any], process: subprocess.Popen[str]) -> None:
        self.name = name
        self.facts = facts
        self.ours = library(name) == OURS
        self._process = process

    def learn(self) -> None:
        """What is known of it by now. Raises WorkerError."""
        self.facts = _ask(self._process, {"facts": [self.name]})[self.name]

    def sample(self, prompt: list[int], tokens: int) -> Sample:
        """Run once. Raises WorkerError."""
        answer = _ask(self._process, {"name": self.name, "prompt": prompt, "tokens": tokens})
        return Sample.read(answer)


def library(name: str) -> str:
    """The part of a contender's name before the first colon."""
    return name.split(":", maxsplit=1)[0]


def groups(names: Sequence[str]) -> list[list[str]]:
    """Names that share a worker."""
    together: dict[str, list[str]] = {}
    for name in names:
        # What compiles may fail, or change how others of its library run.
        alone = library(name) == OURS or "static" in name.split(":")
        together.setdefault(name if alone else library(name), []).append(name)
    return list(together.values())


@contextmanager
def started(
    names: Sequence[str],
    model: str | None,
    threads: int,
    capacity: int,
    failed: dict[str, str] | None = None,
) -> Iterator[list[Remote]]:
    """All contenders, loaded, in the order of ``names``; their processes end with the block.

    Why some cannot be loaded goes into ``failed``; without it that is raised. Raises WorkerError.
    """
    with ExitStack() as stack:
        found: dict[str, Remote] = {}
        for group in groups(names):
            process = stack.enter_context(_process(group, model, threads, capacity))
            try:
                facts = _ask(process, {"facts": group})
            except WorkerError as error:
                if failed is None:
                    raise
                failed |= dict.fromkeys(group, str(error))
                continue
            found |= {name: Remote(name, facts[name], process) for name in group}
        yield [found[name] for name in names if name in found]


@contextmanager
def _process(
    names: Sequence[str], model: str | None, threads: int, capacity: int
) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"{__package__}.worker", *names]
    command += ["--threads", str(threads), "--capacity", str(capacity)]
    if model is not None:
        command += ["--model", model]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):  # a question that a dead process never read
                    pipe.close()


def _ask(process: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except BrokenPipeError:
        line = ""
    if not line:
        code = process.wait()
        raise WorkerError(f"the process of {' '.join(process.args[3:])} ended with code {code}; see above")  # type: ignore[index]
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise WorkerError(answer["error"])
    return answer


def run(contender: Contender, prompt: list[int], tokens: int) -> Sample:
    """One contender on one prompt, in this process."""
    clock = Stopwatch()
    rounds = contender.run(prompt, tokens, clock)
    if len(clock.tokens) != tokens:
        raise WorkerError(
            f"{contender.name} made {len(clock.tokens)} tokens of {tokens}: rates would not compare"
        )
    # Tokens of one round reach a streamer one by one, so ours counts its steps itself.
    steps = rounds.steps if rounds else clock.steps
    return Sample(clock.first_token_s, clock.tokens_per_s, steps, tuple(clock.tokens), rounds)


def serve(questions: IO[str], answers: IO[str], names: Sequence[str], setting: Setting) -> None:
    """Load, then answer until the questions end; an error is an answer too."""
    loaded: dict[str, Contender] = {}
    for line in questions:
        question = json.loads(line)
        try:
            for name in names:
                if name not in loaded:
                    loaded[name] = contenders.prepare(name, setting)
            if "facts" in question:
                answer = {name: loaded[name].facts | loaded[name].later() for name in question["facts"]}
            else:
                contender = loaded[question["name"]]
                answer = asdict(run(contender, question["prompt"], question["tokens"]))
        except (SpeceeError, RuntimeError, ValueError) as error:
            answer = {"error": f"{' '.join(names)}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def main() -> None:
    """Be a worker."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--model", default=None)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--capacity", type=int, required=True)
    options = parser.parse_args()
    # What libraries print must not get among the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    setting = Setting(options.model, options.threads, options.capacity)
    serve(sys.stdin, answers, options.names, setting)


if __name__ == "__main__":
    main()
