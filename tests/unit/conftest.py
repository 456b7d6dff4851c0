"""A tiny model for the tests of the engine: in the reference backend, and in both kinds of backends."""

from __future__ import annotations

import pytest

from specee.backends.protocol import Backend
from tests.engines import Engine, all_engines
from tests.random_model import BASE, random_model


@pytest.fixture(scope="module")
def backend() -> Backend:
    return Engine("reference").load(random_model(BASE, seed=5))


@pytest.fixture(scope="module", params=[all_engines()[0], all_engines()[-1]])
def engine(request: pytest.FixtureRequest) -> Backend:
    loaded: Backend = request.param.load(random_model(BASE, seed=5))
    return loaded
