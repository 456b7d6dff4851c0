"""Tiny models: in the reference backend, in both kinds of backends, and as a folder and loaded from it."""

from __future__ import annotations

from pathlib import Path

import pytest

import specee
from specee.backends import missing
from specee.backends.protocol import Backend
from tests.engines import Engine, all_engines
from tests.random_model import BASE, random_model
from tests.tiny_models import tiny_folder


@pytest.fixture(scope="module")
def backend() -> Backend:
    return Engine("reference").load(random_model(BASE, seed=5))


@pytest.fixture(scope="module", params=[all_engines()[0], all_engines()[-1]])
def engine(request: pytest.FixtureRequest) -> Backend:
    loaded: Backend = request.param.load(random_model(BASE, seed=5))
    return loaded


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := missing("cpu"):
        pytest.skip(reason)
    return tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture
def model(folder: Path) -> specee.Model:
    return specee.load(folder, weights="fp32", threads=1)
