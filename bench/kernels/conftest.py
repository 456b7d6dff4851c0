"""Options of the suite, what is measured under them, and what all cases share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from specee import env

from . import models, references, turns
from .roofline import Machine

_QUICK_MODELS = ("SmolLM2-135M",)
_QUICK_ROWS = (1, 4, 8)
_QUICK_FORMATS = ("BF16", "Q8_0", "Q4_1")
_QUICK_CONTEXTS = (128, 1024)
_QUICK_KV_DTYPES = ("fp16",)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("specee", "specee's microbenchmarks")
    group.addoption("--quick", action="store_true", help="a small selection, about a minute")
    group.addoption("--model", action="append", choices=models.MODELS, help="may be given again")
    group.addoption("--rows", action="append", type=int, help="rows of a pass, 1 to 64; may be given again")
    group.addoption("--format", action="append", choices=references.FORMATS, help="may be given again")
    group.addoption("--threads", type=int, default=None, help="default: physical cores")


@dataclass(frozen=True)
class Selection:
    """What the options leave."""

    models: tuple[str, ...]
    rows: tuple[int, ...]
    formats: tuple[str, ...]
    contexts: tuple[int, ...]
    kv_dtypes: tuple[str, ...]

    @classmethod
    def of(cls, config: pytest.Config) -> Selection:
        quick = config.getoption("--quick")
        return cls(
            tuple(config.getoption("--model") or (_QUICK_MODELS if quick else models.MODELS)),
            tuple(config.getoption("--rows") or (_QUICK_ROWS if quick else models.ROWS)),
            tuple(config.getoption("--format") or (_QUICK_FORMATS if quick else references.FORMATS)),
            _QUICK_CONTEXTS if quick else models.CONTEXTS,
            _QUICK_KV_DTYPES if quick else models.KV_DTYPES,
        )

    def products(self, names: tuple[str, ...]) -> list[tuple[str, str, str]]:
        """(model, product, format), formats that cannot hold a product's rows left out."""
        return [
            (model, name, stored)
            for model in self.models
            for name in names
            for stored in self.formats
            if models.fits(stored, models.MODELS[model].products[name].k)
        ]


_PRODUCTS = ("qkv", "o", "gate_up", "down", "head")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cases of one ``problem`` are one after the other, so that only one set of weights is in memory."""
    selection = Selection.of(metafunc.config)
    module = metafunc.module.__name__.rpartition(".")[2]
    problems = {
        "test_linear": selection.products(_PRODUCTS),
        "test_head": selection.products(("head",)),
        "test_attention": [
            (model, context, dtype)
            for model in selection.models
            for context in selection.contexts
            for dtype in selection.kv_dtypes
        ],
        "test_vectors": [(model,) for model in selection.models],
    }.get(module)
    if problems is None or "problem" not in metafunc.fixturenames:
        return  # the kernels of GPUs choose their own
    ids = ["-".join(map(str, problem)) for problem in problems]
    metafunc.parametrize("problem", problems, ids=ids, indirect=True, scope="module")
    if "rows" in metafunc.fixturenames:
        metafunc.parametrize("rows", selection.rows, ids=[f"{rows} rows" for rows in selection.rows])


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Machine:
    """Bounds, for the number of threads that torch gets as well."""
    return Machine(env.resolve_threads(request.config.getoption("--threads")))


@pytest.fixture(scope="session", autouse=True)
def torch_threads(machine: Machine) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(machine.threads)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def effort(request: pytest.FixtureRequest) -> turns.Effort:
    return turns.QUICK if request.config.getoption("--quick") else turns.FULL
