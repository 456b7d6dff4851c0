"""A tiny reference model for the tests of the engine."""

from __future__ import annotations

import pytest

from specee.backends.protocol import Backend
from tests.engines import Engine
from tests.random_model import BASE, random_model


@pytest.fixture(scope="module")
def backend() -> Backend:
    return Engine("reference").load(random_model(BASE, seed=5))
