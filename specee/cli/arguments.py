"""What can be typed. Commands are imported when they run, so that ``--help`` is instant."""

from __future__ import annotations

import argparse
from typing import Any

from specee._version import __version__

DEFAULT_NEW_TOKENS = 256


def build_parser() -> argparse.ArgumentParser:
    """The parser; the chosen command is ``options.run``."""
    parser = argparse.ArgumentParser(prog="specee", description="Decode causal language models faster.")
    parser.add_argument("--version", action="version", version=f"specee {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="{generate,chat,info}", required=True)
    _add_generate(commands)
    _add_chat(commands)
    info = commands.add_parser(
        "info", help="what this installation can do here, and why it cannot do the rest"
    )
    info.set_defaults(run=_info)
    return parser


def _add_generate(commands: Any) -> None:
    command = commands.add_parser("generate", help="continue a prompt, then print how fast that was")
    command.add_argument("prompt", help="the text; '-' reads it from standard input")
    command.add_argument(
        "--raw", action="store_true", help="continue the text itself, without the chat template"
    )
    command.add_argument(
        "--compare", action="store_true", help="also run plain transformers with the same weights and prompt"
    )
    _add_model(command)
    _add_decoding(command)
    command.set_defaults(run=_generate)


def _add_chat(commands: Any) -> None:
    command = commands.add_parser("chat", help="talk to the model; /reset starts anew, /exit ends")
    command.add_argument("--system", help="a system message to begin with")
    _add_model(command)
    _add_decoding(command)
    command.set_defaults(run=_chat)


def _add_model(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("model")
    group.add_argument(
        "--model", help="Hugging Face folder, GGUF file or hub id (default: SmolLM2-135M-Instruct)"
    )
    group.add_argument(
        "--weights", default="auto", choices=("auto", "fp32", "bf16"), help="format of the products"
    )
    group.add_argument("--kv-dtype", choices=("fp32", "bf16", "fp16"), help="format of the KV cache")
    group.add_argument(
        "--max-context", type=int, metavar="N", help="positions at most (default: the model's)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="threads (default: physical cores)")
    group.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:<index>")


def _add_decoding(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("decoding", "greedy unless --temperature, --top-p or --top-k is given")
    group.add_argument(
        "--max-new-tokens", type=int, default=DEFAULT_NEW_TOKENS, metavar="N", help="default: %(default)s"
    )
    group.add_argument("--temperature", type=float, metavar="T", help="over 0 samples, 0 is greedy")
    group.add_argument("--top-p", type=float, metavar="P", help="sample from the most probable P of the mass")
    group.add_argument("--top-k", type=int, metavar="K", help="sample from the K most probable tokens")
    group.add_argument("--seed", type=int, metavar="S", help="makes sampling repeatable (default: random)")
    group.add_argument("--policy", default="autoregressive", help="how to decode (default: %(default)s)")


def _generate(options: argparse.Namespace) -> int:
    from specee.cli.generate import run

    return run(options)


def _chat(options: argparse.Namespace) -> int:
    from specee.cli.chat import run

    return run(options)


def _info(_options: argparse.Namespace) -> int:
    from specee.cli.info import run

    return run()
