"""What a policy may ask for before it plans: wrong wishes are refused before anything is done for them."""

from __future__ import annotations

from typing import Any

import pytest

from specee.engine import get_ready
from specee.errors import ConfigurationError
from specee.policies import ModelView, Needs
from tests.unit.runs import Say

MODEL = ModelView(4)
WRONG: list[Any] = [
    Needs(shadow_layers=(0,), shadow_positions=1),
    Needs(shadow_layers=(5,), shadow_positions=1),
    Needs(shadow_layers=(2, 1), shadow_positions=1),
    Needs(shadow_layers=(1, 1), shadow_positions=1),
    Needs(shadow_layers=(1.0,), shadow_positions=1),  # type: ignore[arg-type]
    Needs(shadow_layers=("a",), shadow_positions=1),  # type: ignore[arg-type]
    Needs(shadow_layers=None),  # type: ignore[arg-type]
    Needs(shadow_layers=(True,), shadow_positions=1),
    Needs(shadow_layers=(1,), shadow_positions=-1),
    Needs(shadow_layers=(1,), shadow_positions=1.5),  # type: ignore[arg-type]
    Needs(sources=None),  # type: ignore[arg-type]
    Needs(sources=("exit",)),  # type: ignore[arg-type]
    (),
    None,
]


class Wishful(Say):
    """Asks for what it is told to."""

    def __init__(self, wishes: Any) -> None:
        super().__init__()
        self._wishes = wishes

    def begin(self, model: ModelView) -> Needs:
        wishes: Needs = self._wishes
        return wishes


@pytest.mark.parametrize("wishes", WRONG, ids=repr)
def test_what_cannot_be_had_is_refused(wishes: Any) -> None:
    with pytest.raises(ConfigurationError):
        get_ready(Wishful(wishes), MODEL, {})


def test_what_can_be_had_is_not() -> None:
    for wishes in (Needs(), Needs((), (1, 4), 3), Needs((), (), 0, latency=True)):
        assert get_ready(Wishful(wishes), MODEL, {}) is wishes
