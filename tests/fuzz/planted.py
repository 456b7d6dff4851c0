"""Bugs to plant into the loader, to see that the loop finds them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from specee.models import gguf_header

BUGS: dict[str, Callable[[], None]] = {}


def _bug(plant: Callable[[], None]) -> Callable[[], None]:
    BUGS[plant.__name__.replace("_", "-")] = plant
    return plant


@_bug
def trusted_sizes() -> None:
    """Nothing is checked against the size of the file."""
    begin = gguf_header._Parser.__init__

    def trusting(self: Any, file: Any, _: int, path: Any) -> None:
        begin(self, file, 1 << 80, path)

    gguf_header._Parser.__init__ = trusting  # type: ignore[method-assign]


@_bug
def trusted_places() -> None:
    """Tensors may share bytes."""
    gguf_header.check_overlap = lambda *_: None


@_bug
def raw_errors() -> None:
    """A check that raises whatever comes to hand."""

    def raw(_: Any, what: str) -> Exception:
        return ValueError(what)

    gguf_header._Parser._damaged = raw  # type: ignore[assignment,method-assign]
