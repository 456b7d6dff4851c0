"""``specee chat``: a conversation on the terminal, with the KV cache kept from turn to turn."""

from __future__ import annotations

import argparse
import sys

from specee.chat import Chat
from specee.cli.common import decoding, load_model, print_stream
from specee.cli.generate import report
from specee.cli.stats import print_statistics
from specee.errors import CapacityError, ConfigurationError
from specee.model import Model
from specee.policies import make_policy

Messages = list[dict[str, str]]


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    make_policy(options.policy)  # a wrong name is told of before a model is fetched
    model = load_model(options)
    if model.tokenizer.chat_template is None:
        raise ConfigurationError(f"{model.checkpoint.source} has no chat template: use specee generate --raw")
    # What is wrong with the options is told of now, not after the first question.
    model.options(1, 1, **decoding(options))
    model.check_policy(options.policy)
    chat = model.chat()
    opening: Messages = [{"role": "system", "content": options.system}] if options.system else []
    messages = list(opening)
    print("/reset starts anew, /exit ends, Ctrl-C stops an answer.", file=sys.stderr)
    while (line := _read()) is not None:
        if line == "/exit":
            break
        if line == "/reset":
            messages = list(opening)
            chat.reset()
        elif line.startswith("/"):
            print(f"{line.split()[0]} is not a command: /reset, /exit", file=sys.stderr)
        elif line:
            _turn(model, chat, messages, line, options)
    return 0


def _read() -> str | None:
    """A line from the user; None at the end of input. Ctrl-C at the prompt only clears the line."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return None
        except KeyboardInterrupt:
            print(file=sys.stderr)


def _turn(model: Model, chat: Chat, messages: Messages, line: str, options: argparse.Namespace) -> None:
    """One question and its answer; the answer, whole or interrupted, joins ``messages``."""
    asked = [*messages, {"role": "user", "content": line}]
    prompt = model.encode(asked)
    try:
        generation = chat.answer(prompt, model.options(1, len(prompt), **decoding(options)), options.policy)
    except CapacityError as error:
        print(f"specee: {error} (/reset)", file=sys.stderr)
        return
    try:
        print_stream(generation, model.tokenizer)
    except KeyboardInterrupt:
        print("\n(stopped)", file=sys.stderr)
    said = model.tokenizer.decode(generation.sequences[0].generated, skip_special_tokens=True)
    messages[:] = [*asked, {"role": "assistant", "content": said}]
    report(model, generation, kept=chat.reused)
    if options.stats:
        print_statistics(generation.statistics, generation.cost)
