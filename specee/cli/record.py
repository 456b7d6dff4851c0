"""``specee record``: plain decoding that keeps what every layer says, as a trace for ``specee replay``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from specee.cli.common import load_model
from specee.cli.output_file import check_writable
from specee.errors import ConfigurationError
from specee.replay import Trace, write_trace


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    from specee.replay.record import recording

    for name in ("tokens", "limit"):
        if (number := getattr(options, name)) is not None and number < 1:
            raise ConfigurationError(f"--{name} {number}: allowed is 1 or more")
    texts = [*options.prompt, *(read_texts(options.prompts) if options.prompts else ())][: options.limit]
    if not texts:
        raise ConfigurationError("nothing to record: give prompts, or --prompts FILE with one or more lines")
    check_writable(options.output, "--output")
    model = load_model(options)
    prompts = [model.encode(text, raw=options.raw) for text in texts]
    eos = model.options(1, 1, max_new_tokens=options.tokens).eos
    latency = model.latency.table()
    found = []
    for text in recording(model.backend, prompts, options.tokens, eos=eos, kv_dtype=model.kv_dtype):
        found.append(text)
        print(f"text {len(found)} of {len(prompts)}: {text.generated} tokens", file=sys.stderr)
    trace = Trace(options.name or options.output.stem, model.config.num_layers, latency, tuple(found))
    try:
        write_trace(options.output, trace)
    except OSError as error:
        raise ConfigurationError(
            f"--output {options.output}: cannot be written ({error.strerror or error}); give another name"
        ) from error
    print(f"wrote {options.output}: {trace.generated} tokens, {trace.layers} layers", file=sys.stderr)
    return 0


def read_texts(path: Path) -> list[str]:
    """The first turn of each line of JSON; empty lines are skipped. Raises ConfigurationError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--prompts {path}: cannot be read ({error}); give a text file") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["turns"][0]
        except (ValueError, LookupError, TypeError):
            text = None
        if not isinstance(text, str) or not text:
            raise ConfigurationError(
                f'--prompts {path}, line {number}: allowed are objects of the form {{"turns": ["text"]}}'
            )
        found.append(text)
    return found
