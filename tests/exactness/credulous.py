"""Rounds that keep what was drafted first, whatever the full model says: acceptance's negative control."""

from __future__ import annotations

from functools import partial

import pytest

from specee.backends import plain_rounds
from specee.backends.plain_copies import CopiedText
from specee.backends.protocol import Backend, RoundCall


def keep_first_drafts(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> None:
    """From now on, in rounds that no code of the user watches."""
    real = plain_rounds._walk

    def credulous(call: RoundCall, after: dict[int, int]) -> tuple[tuple[int, ...], list[int]]:
        state = call.sequence
        newest = state.length - 1
        drafts = [row.token for row in map(state.row, state.speculative) if row.parent == newest]
        return real(call, {**after, newest: drafts[0]} if drafts else after)

    monkeypatch.setattr(plain_rounds, "_walk", credulous)
    monkeypatch.setattr(backend, "run_rounds", partial(plain_rounds.run_rounds, backend))
    monkeypatch.setattr(backend, "copies", CopiedText)
