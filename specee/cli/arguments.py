"""What can be typed. Commands are imported when they run, so that ``--help`` is instant."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from specee._version import __version__
from specee.policies import policy_names

DEFAULT_NEW_TOKENS = 256
BENCH_PARTS = ("speed", "rows", "batch", "formats", "kernels")


def build_parser() -> argparse.ArgumentParser:
    """The parser; the chosen command is ``options.run``."""
    parser = argparse.ArgumentParser(prog="specee", description="Decode causal language models faster.")
    parser.add_argument("--version", action="version", version=f"specee {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="{generate,chat,info,bench,fit,record,replay}", required=True
    )
    _add_generate(commands)
    _add_chat(commands)
    info = commands.add_parser(
        "info", help="what this installation can do here, and why it cannot do the rest"
    )
    info.add_argument(
        "--costs", action="store_true", help="load the model and show where the time of a step goes"
    )
    _add_model(info)
    info.set_defaults(run=_info)
    _add_bench(commands)
    _add_fit(commands)
    _add_record(commands)
    _add_replay(commands)
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
    command.add_argument(
        "--trace", type=Path, metavar="FILE.html",
        help="write a page of the text, each token in the colour of what drafted it",
    )  # fmt: skip
    _add_model(command)
    _add_decoding(command)
    command.set_defaults(run=_generate)


def _add_chat(commands: Any) -> None:
    command = commands.add_parser("chat", help="talk to the model; /reset starts anew, /exit ends")
    command.add_argument("--system", help="a system message to begin with")
    _add_model(command)
    _add_decoding(command)
    command.set_defaults(run=_chat)


def _add_bench(commands: Any) -> None:
    command = commands.add_parser("bench", help="measure speed on this machine beside other libraries")
    command.add_argument("--quick", action="store_true", help="a few minutes in all, and rougher figures")
    command.add_argument(
        "--out", type=Path, default=Path("specee-bench"), metavar="DIR",
        help="where bench.json and report.html go (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--part",
        action="append",
        choices=BENCH_PARTS,
        help="only this one; may be given again (default: all)",
    )
    command.add_argument("--model", help="as for generate; llama.cpp needs a GGUF file")
    command.add_argument("--threads", type=int, metavar="N", help="threads (default: physical cores)")
    command.add_argument(
        "--prompts", type=Path, action="append", metavar="FILE",
        help='JSON lines of the form {"turns": ["text"]}; may be given again (default: thirteen of our own)',
    )  # fmt: skip
    command.add_argument(
        "--contender", action="append", metavar="NAME",
        help="specee[:cuda][:WEIGHTS][:POLICY], llama.cpp, "
        "transformers[:cuda][:lookup|:early-exit[:LAYER]|:static][:fp32]; "
        "may be given again (default: those installed)",
    )  # fmt: skip
    command.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="what is measured (default: %(default)s); cuda beside transformers there, part speed alone",
    )  # fmt: skip
    command.add_argument(
        "--from", type=Path, dest="recorded", metavar="JSON", help="measure nothing, report on an earlier run"
    )
    command.set_defaults(run=_bench)


def _add_fit(commands: Any) -> None:
    command = commands.add_parser(
        "fit", help="make a speculator file for a model, from texts it writes itself"
    )
    command.add_argument(
        "--output", type=Path, required=True, metavar="FILE.safetensors", help="the speculator file to write"
    )
    command.add_argument(
        "--tokens", type=int, metavar="N",
        help="that the model writes to be fitted on (default: 1000000)",
    )  # fmt: skip
    command.add_argument(
        "--corpus", type=Path, metavar="FILE",
        help="JSON lines of texts or chats, to be fitted on instead (--tokens of them at most)",
    )  # fmt: skip
    command.add_argument(
        "--epochs", type=int, metavar="N",
        help="times that each text is trained on (default: 2)",
    )  # fmt: skip
    command.add_argument(
        "--snapshots", type=int, metavar="N",
        help="files left on the way, after a half of the training, a fourth, and so on (default: 0)",
    )  # fmt: skip
    command.add_argument(
        "--base", type=Path, metavar="FILE",
        help="a speculator file whose drafter is kept: only the rest is fitted (try --tokens 60000)",
    )  # fmt: skip
    command.add_argument(
        "--warm-start", type=Path, nargs="?", const=True, metavar="FILE",
        help="a speculator file whose drafter is trained on, for the same draft vocabulary, with texts of "
        "another --seed or your --corpus; without a name, the one that comes with the package",
    )  # fmt: skip
    command.add_argument(
        "--no-adapters", dest="adapters", action="store_const", const=False,
        help="fit none for exit layers",
    )  # fmt: skip
    command.add_argument(
        "--import", type=Path, dest="imported", metavar="DIR",
        help="fit nothing: make the file of a published EAGLE head in a local folder",
    )  # fmt: skip
    command.add_argument(
        "--generations", type=int, metavar="N",
        help="that approximate decoding is calibrated on, 0 for none (default: 200)",
    )  # fmt: skip
    command.add_argument(
        "--minutes", type=float, metavar="M",
        help="of wall time for all of it: each stage does what there is time for (default: no bound)",
    )  # fmt: skip
    command.add_argument(
        "--memory", metavar="SIZE",
        help="what fitting may hold beside the model, such as 2GB (default: no bound)",
    )  # fmt: skip
    command.add_argument(
        "--plot", type=Path, metavar="FILE.png|.svg", help="draw the report, too (needs matplotlib)"
    )
    command.add_argument("--seed", type=int, metavar="S", help="of texts and training (default: 0)")
    command.add_argument(
        "--work", type=Path, metavar="DIR",
        help="keeps texts and training, so that a run that was stopped goes on (default: in the cache)",
    )  # fmt: skip
    _add_model(command, speculator=False)
    command.set_defaults(run=_fit, speculator="none")


def _add_record(commands: Any) -> None:
    command = commands.add_parser("record", help="decode plainly, and keep what every layer says, for replay")
    command.add_argument("prompt", nargs="*", help="a text; more may be given")
    command.add_argument(
        "--prompts", type=Path, metavar="FILE", help='JSON lines of the form {"turns": ["text"]}'
    )
    command.add_argument("--limit", type=int, metavar="N", help="only the first N prompts")
    command.add_argument("--output", type=Path, required=True, metavar="TRACE.npz", help="the file to write")
    command.add_argument(
        "--tokens", type=int, default=DEFAULT_NEW_TOKENS, metavar="N",
        help="of each answer, at most (default: %(default)s)",
    )  # fmt: skip
    command.add_argument("--name", help="of the trace (default: that of the file)")
    command.add_argument(
        "--raw", action="store_true", help="continue the texts themselves, without the chat template"
    )
    _add_model(command)
    command.set_defaults(run=_record)


def _add_replay(commands: Any) -> None:
    command = commands.add_parser("replay", help="judge policies on recorded traces, without a model")
    command.add_argument("traces", nargs="+", type=Path, metavar="TRACE", help="a file of specee record")
    command.add_argument(
        "--policy", nargs="+", default=["del", "auto"], metavar="SPEC",
        help="NAME or NAME:key=value,...; more may be given (default: del auto)",
    )  # fmt: skip
    command.add_argument(
        "--sweep", action="store_true", help="beside every static exit layer and speculation length"
    )
    command.add_argument(
        "--rounds", action="store_true",
        help="also every round: what drafted, what was accepted, and the layers looked at",
    )  # fmt: skip
    command.add_argument(
        "--splice", action="store_true",
        help="texts of the first of two traces that go on as the second's: how soon do policies follow?",
    )  # fmt: skip
    command.add_argument(
        "--at", type=int, metavar="N", help="splice after N tokens (default: half of the shortest answer)"
    )
    command.set_defaults(run=_replay)


def _add_model(command: argparse.ArgumentParser, *, speculator: bool = True) -> None:
    group = command.add_argument_group("model")
    group.add_argument(
        "--model", help="Hugging Face folder, GGUF file or hub id (default: SmolLM2-135M-Instruct)"
    )
    group.add_argument(
        "--weights",
        default="auto",
        choices=("auto", "fp32", "bf16", "packed", "int8", "int4"),
        help="how weights are stored (default: packed, as they are, for GGUF; else fp32 or bf16)",
    )
    if speculator:
        group.add_argument(
            "--speculator",
            metavar="FILE",
            help="fitted parts to draft with, of specee fit, or none (default: the package's for this model)",
        )
    group.add_argument("--kv-dtype", choices=("fp32", "bf16", "fp16"), help="format of the KV cache")
    group.add_argument(
        "--max-context", type=int, metavar="N", help="positions at most (default: the model's)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="threads (default: physical cores)")
    group.add_argument("--device", default="cpu", help="cpu (default), cuda, cuda:<index>")


def _add_decoding(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group(
        "decoding", "greedy unless --temperature, --top-p, --top-k or --min-p is given"
    )
    group.add_argument(
        "--max-new-tokens", type=int, default=DEFAULT_NEW_TOKENS, metavar="N", help="default: %(default)s"
    )
    group.add_argument("--temperature", type=float, metavar="T", help="over 0 samples, 0 is greedy")
    group.add_argument("--top-p", type=float, metavar="P", help="sample from the most probable P of the mass")
    group.add_argument("--top-k", type=int, metavar="K", help="sample from the K most probable tokens")
    group.add_argument(
        "--min-p",
        type=float,
        metavar="P",
        help="sample from tokens P times as probable as the likeliest, or more",
    )
    group.add_argument(
        "--repetition-penalty", type=float, metavar="R",
        help="over 1 makes tokens of the text so far less likely, greedy or not (default: 1)",
    )  # fmt: skip
    group.add_argument("--seed", type=int, metavar="S", help="makes sampling repeatable (default: random)")
    group.add_argument(
        "--stop", action="append", dest="stop_strings", metavar="TEXT",
        help="end where the answer holds this; may be given again",
    )  # fmt: skip
    _add_policy(group)


def _add_policy(group: Any) -> None:
    group.add_argument(
        "--policy", default="autoregressive", metavar="SPEC",
        help="how to decode: NAME or NAME:key=value,...; e.g. layerskip:exit_layer=24,speculation_length=3; "
        f"names are {', '.join(policy_names())} (default: %(default)s)",
    )  # fmt: skip
    group.add_argument(
        "--acceptance", choices=("coupled", "rejection"),
        help="which drafts stay when sampling: those plain decoding would draw (coupled, the default), or by "
        "rejection sampling",
    )  # fmt: skip
    group.add_argument(
        "--stats", action="store_true", help="also print drafts, acceptance and where the time went"
    )


def _generate(options: argparse.Namespace) -> int:
    from specee.cli.generate import run

    return run(options)


def _chat(options: argparse.Namespace) -> int:
    from specee.cli.chat import run

    return run(options)


def _info(options: argparse.Namespace) -> int:
    if options.costs:
        from specee.cli.costs import run as run_costs

        return run_costs(options)
    from specee.cli.info import run

    return run()


def _bench(options: argparse.Namespace) -> int:
    from specee.cli.bench import run

    return run(options)


def _fit(options: argparse.Namespace) -> int:
    from specee.cli.fit import run

    return run(options)


def _record(options: argparse.Namespace) -> int:
    from specee.cli.record import run

    return run(options)


def _replay(options: argparse.Namespace) -> int:
    from specee.cli.replay import run

    return run(options)
