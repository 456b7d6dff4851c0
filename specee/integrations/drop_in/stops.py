"""Which of transformers' stopping criteria the engine knows itself, and how the others are called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import transformers
from transformers.generation.stopping_criteria import StopStringCriteria

from specee.integrations.drop_in.call import Call

_LENGTH, _EOS = transformers.MaxLengthCriteria, transformers.EosTokenCriteria
# Each row by itself.
_BY_ROW = (transformers.MaxTimeCriteria, StopStringCriteria)


@dataclass(frozen=True)
class Ends:
    """When a row is over: at a token of ``eos``, or when one of ``called`` says so."""

    eos: frozenset[int]
    called: tuple[Any, ...]
    by_row: bool
    """Whether rows may be judged one by one."""


def ends(call: Call) -> Ends:
    """Leave length and end-of-text tokens to the engine, unless the user's criteria are to see them."""
    every = tuple(call.criteria)
    own = [one for one in every if type(one) not in (_LENGTH, _EOS, *_BY_ROW)]
    if own:
        return Ends(frozenset(), every, by_row=call.rows == 1)
    eos = {
        int(token) for one in every if type(one) is _EOS for token in one.eos_token_id.reshape(-1).tolist()
    }
    called = tuple(one for one in every if type(one) in _BY_ROW)
    # Without an end-of-text token transformers lets a finished row go on until all are over.
    return Ends(frozenset(eos), called, by_row=call.rows == 1 or call.pads_rows or not called)
