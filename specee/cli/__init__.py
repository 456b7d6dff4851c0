"""The ``specee`` command: ``generate``, ``chat``, ``info``, ``bench``, ``fit``, ``record`` and ``replay``."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence

from specee.cli.arguments import build_parser
from specee.errors import SpeceeError

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code: 0, 2 for an error (one line on stderr), 130 for Ctrl-C."""
    options = build_parser().parse_args(arguments)
    warnings.showwarning = _show_warning
    try:
        return int(options.run(options))
    except SpeceeError as error:
        print(f"specee: error: {_one_line(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (``| head``): nothing more can be said, at exit neither.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _show_warning(message: Warning | str, *_where: object, **_more: object) -> None:
    print(f"specee: warning: {' '.join(str(message).split())}", file=sys.stderr)
