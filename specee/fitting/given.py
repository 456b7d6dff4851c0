"""A speculator file that fitting goes on from, and how that was made."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from specee.errors import ConfigurationError
from specee.fitting.plan import Plan
from specee.model import Model
from specee.models.drafter_parts import DrafterParts
from specee.models.speculator import Ints, read_notes, read_speculator


class Given(NamedTuple):
    """A file's ``block``, for ids of ``vocabulary``, None for all.

    ``notes``: what the file says of how it was made; ``trained``: tokens that the block has seen, as far as
    it says so; ``mark`` tells the file from others.
    """

    block: DrafterParts
    vocabulary: Ints | None
    notes: Mapping[str, Any]
    trained: int
    mark: int


def read_given(model: Model, plan: Plan, mark: str) -> Given | None:
    """The file that ``plan`` begins with, None if it begins with none.

    Raises CheckpointError for a damaged file, or one of another model; ConfigurationError for one without a
    block, and for a seed whose texts the block has been trained on.
    """
    name = plan.base if plan.warm_start is None else plan.warm_start
    if name is None:
        return None
    path = Path(name)
    speculator = read_speculator(path, model.config, mark)
    if speculator.drafter is None:
        how = "base" if plan.warm_start is None else "warm_start"
        raise ConfigurationError(f"{how} {name}: it has no drafter block to go on from; fit one")
    notes = _notes(path)
    if plan.warm_start is not None and plan.corpus is None:
        _check_seed(plan, notes)
    trained = notes.get("trained")
    return Given(
        speculator.drafter,
        speculator.vocabulary,
        notes,
        trained if isinstance(trained, int) else 0,
        zlib.crc32(path.read_bytes()),
    )


def _notes(path: Path) -> dict[str, Any]:
    """Nothing depends on them: a file may have been made by somebody else, and say nothing."""
    try:
        notes = json.loads(read_notes(path).get("fit", "{}"))
    except ValueError:
        return {}
    return notes if isinstance(notes, dict) else {}


def _check_seed(plan: Plan, notes: Mapping[str, Any]) -> None:
    """New texts are wanted: the same seed writes the same ones."""
    seeds = {seed for seed in map(_seed, _plans(notes)) if seed is not None}
    if plan.seed in seeds:
        free = next(seed for seed in range(len(seeds) + 1) if seed not in seeds)
        raise ConfigurationError(
            f"seed={plan.seed}: {plan.warm_start} was fitted on texts of that seed, and would see them "
            f"again; give another one, such as {free}"
        )


def _seed(plan: Mapping[str, Any]) -> int | None:
    """Of texts that a block was trained on; a fit with a base has trained none, and a corpus has no seed."""
    seed = plan.get("seed")
    own = plan.get("base") is None and plan.get("corpus") is None
    return seed if own and isinstance(seed, int) else None


def _plans(notes: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Of the file, of the one that it was made from, and so on."""
    said: object = notes
    while isinstance(said, Mapping):
        plan = said.get("plan")
        if isinstance(plan, Mapping):
            yield plan
        said = said.get("before")
