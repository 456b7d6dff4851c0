"""What was asked for, as the engine takes it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq

from specee.engine import Request, Stop
from specee.errors import ConfigurationError
from specee.options import Options
from specee.stopping import StopStrings

Decode = Callable[[list[int]], str]


def make_request(prompt: Seq[int], options: Options, row: int, decode: Decode | None) -> Request:
    """The request of one row. ``decode``: of the model's tokenizer, None if it has none.

    Raises ConfigurationError for an empty prompt, and for stop strings without a tokenizer.
    """
    stops: tuple[Stop, ...] = ()
    if options.stop_strings:
        if decode is None:
            raise ConfigurationError(
                f"stop_strings={list(options.stop_strings)!r} need a tokenizer, and this model has none: "
                "stop by eos_token_id"
            )
        stops = (StopStrings(options.stop_strings, decode),)
    return Request(
        tuple(prompt),
        options.max_new_tokens,
        options.sampling(row),
        frozenset(options.eos),
        stops=stops,
        acceptance=options.acceptance,
    )
