"""The way in: what can be found out is found out before hours are spent."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from specee._version import __version__
from specee.errors import BackendUnavailableError, ConfigurationError
from specee.fitting.limits import bytes_of
from specee.fitting.plot import check_plot, write_plot
from specee.model import Model
from specee.models.default_model import cache_folder
from specee.models.packaged import packaged_file, shape_of
from specee.models.speculator import Speculator, fingerprint, write_speculator
from specee.whole_file import check_possible

if TYPE_CHECKING:
    from specee.fitting.plan import Report, Tell


def fit(  # noqa: PLR0913 - each is a choice that users make by name
    model: Model,
    output: str | os.PathLike[str],
    *,
    tokens: int = 1_000_000,
    epochs: int = 2,
    seed: int = 0,
    corpus: str | os.PathLike[str] | None = None,
    snapshots: int = 0,
    base: str | os.PathLike[str] | None = None,
    warm_start: str | os.PathLike[str] | bool | None = None,
    adapters: bool = True,
    generations: int = 200,
    minutes: float | None = None,
    memory: int | str | None = None,
    plot: str | os.PathLike[str] | None = None,
    work: str | os.PathLike[str] | None = None,
    tell: Tell | None = None,
) -> Report:
    """Make a speculator file for a frozen model: a draft vocabulary, a drafter block, adapters, predictors.

    Adapters are for a handful of exit layers, and kept where they pay. ``output``: the safetensors file to
    write, which ``load(speculator=...)`` reads. ``tokens``: that the model writes, conversations with itself,
    and that are fitted on; with ``corpus``, a file of texts or chats (:func:`.own_texts.read_documents`), at
    most so many of its. ``epochs``: times that each is trained on. ``seed``: of texts and training.
    ``snapshots``: files left beside ``output`` after a half of the training, a fourth, and so on. ``base``: a
    speculator file of the model whose vocabulary and block are kept, so that only the rest is fitted (60,000
    ``tokens`` are plenty for it). ``warm_start``: one whose block is trained on, on texts of another ``seed``
    or of a corpus, for the same vocabulary; the rest is fitted anew (True: the package's own file for the
    model). ``adapters``: whether exit layers get any. ``generations``: that approximate
    decoding by the predictors is calibrated on (:mod:`specee.policies.risk`), 0 for none.

    ``minutes``: of wall time for all of it, shared out among the stages; each does what there is time for,
    and the file's notes and ``Report.cut_short`` say what that was. ``memory``: what stages may hold beside
    the model, as bytes or as a text such as "2GB". What both promise is in docs/fitting.md.

    ``plot``: a picture of the report, a name that ends in .png or .svg; it needs matplotlib.

    ``work``: folder for what is in between, by default in the user's cache: what is there is used, so that a
    run that was stopped goes on and comes to the same file. ``tell(stage, done, total)`` hears how far it is.

    On two cores it takes about an hour for a million tokens of a model of 135 M parameters. (EAGLE-3, Li et
    al., 2025; Magpie, Xu et al., 2024)

    Raises BackendUnavailableError without torch, or matplotlib for a plot, ConfigurationError (also for less
    memory than the least that works, which it names), CheckpointError for a damaged file in ``work``,
    CapacityError where the context is shorter than texts (512 positions do), OutOfMemoryError,
    NumericalError, OSError where ``work`` cannot be written.
    """
    try:
        from specee.fitting.pipeline import fit as fit_plan
        from specee.fitting.plan import Plan
    except ImportError as error:
        raise BackendUnavailableError(
            f'fitting needs torch ({error}): install it with pip install "specee[hf]"'
        ) from error
    plan = Plan(
        tokens,
        seed,
        epochs,
        snapshots=snapshots,
        corpus=_path(corpus),
        base=_path(base),
        warm_start=_packaged(model) if warm_start is True else _path(warm_start or None),
        adapter_samples=Plan.adapter_samples if adapters else 0,
        generations=generations,
        minutes=minutes,
        memory=None if memory is None else bytes_of(memory),
    )
    path = Path(output)
    _check_output(path)
    if plot is not None:
        check_plot(Path(plot))
    folder = default_work(path) if work is None else Path(work)
    report = fit_plan(model, plan, path, folder, tell or (lambda *_: None))
    if plot is not None:
        write_plot(Path(plot), report)
    return report


def import_eagle(model: Model, folder: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Make a speculator file of a published EAGLE head (Li et al., ICML 2024) for this very model.

    ``folder`` is a local one with config.json and model.safetensors or pytorch_model.bin (which torch reads,
    tensors alone; nothing in it is run). The file has a drafter block that computes what the head does, over
    the whole vocabulary, its weights in fp16. Heads of later EAGLEs are refused.

    Raises CheckpointError for files that are missing, damaged or made for another model,
    UnsupportedModelError for heads of another kind, BackendUnavailableError without torch for a pickled file,
    ConfigurationError where ``output`` cannot be written.
    """
    from specee.models.eagle import read_eagle

    path = Path(output)
    _check_output(path)
    parts = read_eagle(Path(folder), model.checkpoint)
    mark = fingerprint(model.config, model.checkpoint.norms())
    notes = {
        "shape": shape_of(model.config),
        "fit": json.dumps({"imported": Path(folder).name, "specee": __version__}),
    }
    write_speculator(path, Speculator(drafter=parts), mark, notes)


def _path(name: str | os.PathLike[str] | None) -> str | None:
    return None if name is None else os.fspath(name)


def _packaged(model: Model) -> str:
    path = packaged_file(model.checkpoint)
    if path is None:
        raise ConfigurationError(
            "warm_start=True: no speculator file for this model comes with the package; name one, or fit one "
            "without a warm start"
        )
    return os.fspath(path)


def _check_output(path: Path) -> None:
    try:
        check_possible(path)
    except OSError as error:
        raise ConfigurationError(
            f"output {path}: cannot be written ({error.strerror or error}); give a name in a folder that "
            "exists and that you may write to"
        ) from error


def default_work(output: Path) -> Path:
    """Where a fit of that file keeps what is in between."""
    return cache_folder() / "fit" / output.stem
