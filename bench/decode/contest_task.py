"""What measurements of policies in turns have in common: their options, what they run on, how they end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import specee
from specee.errors import ConfigurationError
from specee.models.checkpoint import Checkpoint, open_checkpoint

from .. import options as common
from .. import prompts
from .contenders import WEIGHTS
from .policy_check import check_policies

TOKENS = 128
DIFFERENT = 1


@dataclass(frozen=True)
class Task:
    """The model's file, and how prompts are chosen and continued.

    ``fitted``: whether the parts that come with the package for this model are loaded with it.
    """

    threads: int
    model: str | None = None
    weights: tuple[str, ...] = ("auto",)
    tokens: int = TOKENS
    files: tuple[Path, ...] = (prompts.OWN,)
    every: int = 1
    most: int | None = None
    rounds: int = 1
    fitted: bool = True

    def opened(self, policies: Sequence[str]) -> Checkpoint:
        """The checkpoint. Raises ConfigurationError for what cannot be measured with it."""
        if self.tokens < 2 or min(self.rounds, self.every) < 1 or (self.most is not None and self.most < 1):
            raise ConfigurationError(
                f"tokens={self.tokens}, rounds={self.rounds}, every={self.every}, most prompts={self.most}: "
                "a rate needs 2 tokens, and 1 or more of the others"
            )
        checkpoint = open_checkpoint(self.model)
        if checkpoint.tokenizer is None:
            raise ConfigurationError(f"{checkpoint.source} has no tokenizer: the prompts are texts")
        check_policies(policies, checkpoint, fitted=self.fitted)
        return checkpoint

    def texts(self, checkpoint: Checkpoint, files: Sequence[Path], *, raw: bool = False) -> list[list[int]]:
        """The chosen prompts of some files, ``rounds`` times; ``raw`` without the chat template."""
        tokenizer = checkpoint.tokenizer
        assert tokenizer is not None
        if raw:
            ids = [tokenizer.encode(text) for text in prompts.load(list(files))]
        else:
            ids = prompts.encoded(tokenizer, list(files))
        return ids[:: self.every][: self.most] * self.rounds

    def loaded(self, weights: str) -> specee.Model:
        """The model."""
        return specee.load(
            self.model,
            weights=weights,  # type: ignore[arg-type]
            backend="cpu",
            threads=self.threads,
            speculator=None if self.fitted else False,
        )

    def kinds(self, checkpoint: Checkpoint) -> list[str]:
        """Weights, each once."""
        return list(dict.fromkeys(checkpoint.natural_weights if w == "auto" else w for w in self.weights))

    def facts(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """For the result."""
        return {
            "model": Path(checkpoint.source).name,
            "threads": self.threads,
            "prompt_files": [path.name for path in self.files],
            "every": self.every,
            "new_tokens": self.tokens,
            "rounds": self.rounds,
        }


def parser(doc: str | None, policies: Sequence[str], tokens: int = TOKENS) -> argparse.ArgumentParser:
    """The options that all of these have; ``policies`` are measured unless others are named."""
    made = common.parser(doc, prompts=True)
    again = "may be given again; default: "
    made.add_argument("--weights", action="append", choices=WEIGHTS, help=again + "auto")
    if policies:
        made.add_argument("--policy", action="append", help=again + " ".join(policies))
    made.add_argument("--tokens", type=int, default=tokens, help="default: %(default)s")
    made.add_argument("--every", type=int, default=1, help="take every so many-th prompt of a file or all")
    made.add_argument("--most-prompts", type=int, help="take the first so many of these")
    made.add_argument("--rounds", type=int, default=1, help="over all prompts; default: %(default)s")
    return made


def task(options: argparse.Namespace) -> Task:
    """As the options say."""
    return Task(
        threads=options.threads,
        model=options.model,
        weights=tuple(options.weights or ["auto"]),
        tokens=options.tokens,
        files=tuple(options.prompts or [prompts.OWN]),
        every=options.every,
        most=options.most_prompts,
        rounds=options.rounds,
    )


def finish(options: argparse.Namespace, kind: str, result: dict[str, Any]) -> None:
    """Show and save; exit with 1 if any tokens differ from plain decoding's."""
    common.finish(options, kind, result)
    wrong = [
        f"{part['label']}, {policy}: {len(found)} prompts differ, first {found[0]}"
        for part in result["parts"]
        for policy, found in part["differing"].items()
    ]
    for one in wrong:
        print(f"not lossless: {one}", file=sys.stderr)
    if wrong:
        sys.exit(DIFFERENT)
    print("every token is that of plain decoding", file=sys.stderr)
