"""What a step of the CUDA backend launches, where its weights are, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Seq
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from specee.backends.cuda import CudaBackend  # noqa: E402
from specee.errors import ConfigurationError, NumericalError, OutOfMemoryError  # noqa: E402
from specee.models.table import shapes  # noqa: E402
from specee.types import Sampling  # noqa: E402
from tests.cuda.emulator import EmulatedLauncher, LibraryLauncher, compiler, fresh_seed  # noqa: E402
from tests.cuda.recorder import CONFIG, Recorder, recorded, small  # noqa: E402
from tests.random_model import SHAPES, random_model  # noqa: E402

# Of one layer; products are named as they are for up to eight rows.
ONE = "linear_bf16_1"
ATTEND = ["norm_rows_bf16", ONE, ONE, ONE, "turn_heads_bf16", "attention_bf16_64", "attention_combine"]
LAYER = [*ATTEND, "round_rows", ONE, "norm_rows_bf16", ONE, ONE, "swiglu_bf16", ONE]
ENTER = ["embed_bf16", "fill_paths", "turn_angles"]
STEP = [*ENTER, *LAYER * CONFIG.num_layers]


@pytest.mark.parametrize(("rows", "tiles"), [(1, 1), (8, 1), (11, 2), (64, 8)])
def test_launches_of_a_step_do_not_depend_on_rows(rows: int, tiles: int) -> None:
    _, recorder, _ = recorded(rows)
    assert recorder.names == [name.replace(ONE, f"linear_bf16_{tiles}") for name in STEP]
    grids = dict(zip(recorder.names, [launch[1] for launch in recorder.launches], strict=True))
    heads, key_heads = CONFIG.num_heads, CONFIG.num_kv_heads
    assert grids["turn_heads_bf16"] == (heads + 2 * key_heads, rows, 1)
    assert grids["attention_bf16_64"] == (1, key_heads, rows)
    assert grids["norm_rows_bf16"] == (rows, 1, 1)
    assert grids[f"linear_bf16_{tiles}"] == (CONFIG.hidden_size // 16, 1, 1), "the last one is down's"


def test_packed_weights_take_quantised_rows() -> None:
    _, recorder, _ = recorded(1, "int4")
    counts = Counter(recorder.names)
    layers = CONFIG.num_layers
    assert counts["linear_int4_1"] == 7 * layers
    assert counts["norm_rows_int8"] == 2 * layers
    assert counts["quantise_rows"] == counts["swiglu_int8"] == layers
    assert counts["embed_int8"] == 1


def test_nothing_waits_or_is_made_between_first_and_last_launch() -> None:
    """Between launches arrays that stand are looked at, and nothing else: a graph could hold it."""
    _, recorder, _ = recorded(5)
    assert recorder.watching is not None
    seen = recorder.watching.seen
    first, last = seen.index("launch embed_bf16"), len(seen) - 1 - seen[::-1].index(f"launch {ONE}")
    between = {name for name in seen[first:last] if not name.startswith("launch")}
    # __get__: of shape, dtype and device.
    assert between <= {"__get__", "__getitem__", "data_ptr", "flatten", "is_contiguous", "view"}
    assert {"copy_", "empty_like"} <= set(seen[:first]), "the negative control: what is sent before is seen"
    assert "copy_" in seen[last:], "and what is kept after"


def test_tensors_that_are_there_are_used_in_place() -> None:
    model = random_model(CONFIG, seed=1, kind="bf16")
    given = {
        key: torch.from_numpy(array).to(torch.bfloat16)
        for key, array in model.weights.items()
        if len(shapes(CONFIG)[key]) == 2
    }
    slabs = [slab for slab in model.slabs() if (slab.role, slab.layer) not in given]
    recorder = Recorder()
    backend = CudaBackend(CONFIG, slabs, "bf16", device="cpu", launcher=recorder, given=given)
    sequence = backend.sequence(8)
    work = [(sequence, sequence.append([1]))]
    backend.advance(work, CONFIG.num_layers)
    read = [args[0].data_ptr() for name, _, _, args in recorder.launches if name.startswith("linear")]
    roles = ("q", "k", "v", "o", "gate", "up", "down")
    assert read == [given[role, layer].data_ptr() for layer in range(CONFIG.num_layers) for role in roles]
    assert recorder.launches[0][3][1].data_ptr() == given["embed", -1].data_ptr()


def test_a_tensor_that_kernels_cannot_read_is_copied() -> None:
    model = random_model(CONFIG, seed=1, kind="bf16")
    key = ("up", 1)
    room = torch.zeros(1 + model.weights[key].size, dtype=torch.bfloat16)
    askew = room[1:].view(model.weights[key].shape)
    askew.copy_(torch.from_numpy(model.weights[key]))
    assert askew.data_ptr() % 16
    slabs = [slab for slab in model.slabs() if (slab.role, slab.layer) != key]
    backend = CudaBackend(CONFIG, slabs, "bf16", device="cpu", launcher=Recorder(), given={key: askew})
    placed = backend._table.matrix(*key)
    assert placed.data_ptr() % 16 == 0
    assert torch.equal(placed, askew)


def test_memory_is_asked_for_before_anything_is_made() -> None:
    with pytest.raises(OutOfMemoryError, match=r"bf16 weights.*int8"):
        small(free=lambda: 1000)
    room = [1 << 40]
    backend = small(free=lambda: room[0])
    first = backend.sequence(10)
    room[0] = 10_000
    launcher = backend._launcher
    with pytest.raises(OutOfMemoryError, match=r"a bf16 KV cache of 250 positions.*shorter context"):
        backend.sequence(250)
    backend.advance([(first, first.append([1, 2]))], CONFIG.num_layers)
    assert launcher.names == STEP  # type: ignore[attr-defined]
    assert backend.sequence(2).capacity == 2


def test_states_are_had_before_rows_move(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = small()
    sequence = backend.sequence(10)
    slots = sequence.append([1, 2])

    def full(*_: Any, **__: Any) -> None:
        raise RuntimeError("no room")

    with monkeypatch.context() as patched:
        patched.setattr(torch, "empty_like", full)
        with pytest.raises(OutOfMemoryError, match=r"2 rows after 1 layers.*no room"):
            backend.advance([(sequence, slots)], 1)
    assert sequence.frontier == (0, 0, 0)
    assert not backend._launcher.launches  # type: ignore[attr-defined]
    backend.advance([(sequence, slots)], 1)
    assert sequence.frontier == (2, 0, 0)


@pytest.mark.parametrize(
    ("changes", "weights", "words"),
    [
        ({}, "fp32", r"weights='fp32'.*'bf16', 'int8', 'int4'.*backend='reference'"),
        ({}, "packed", r"weights='packed'.*backend='reference'"),
        ({"hidden_size": 72}, "bf16", r"hidden_size=72.*multiples of 32"),
        ({"intermediate_size": 50}, "int8", r"intermediate_size=50.*multiples of 32"),
        ({"head_dim": 80}, "bf16", r"head_dim=80.*\(64, 128, 256\)"),
    ],
)
def test_what_has_no_kernels_is_refused(changes: dict[str, int], weights: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        CudaBackend(replace(CONFIG, **changes), iter(()), weights, device="cpu", launcher=Recorder())


def test_a_cache_of_fp32_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"kv_dtype 'fp32'.*'bf16', 'fp16'"):
        small().sequence(4, "fp32")


def test_draft_heads_of_others_are_refused() -> None:
    backend = small()
    sequence = backend.sequence(4)
    work = [(sequence, sequence.append([1]))]
    backend.advance(work, 1)
    with pytest.raises(ConfigurationError, match="draft_head"):
        backend.logits(work, object())  # type: ignore[arg-type]


@pytest.fixture
def emulated() -> CudaBackend:
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    return small(launcher=LibraryLauncher(fresh_seed("order of threads")))


def test_a_parent_may_join_after_its_child(emulated: CudaBackend) -> None:
    """A draft begins while its parent waits at layer 1, with a row of another sequence between them."""
    states = []
    for together in (True, False):
        mine, other = (emulated.sequence(8, poison=True) for _ in range(2))
        emulated.advance([(mine, mine.append([1, 2, 3])[:2])], CONFIG.num_layers)
        emulated.advance([(mine, [2])], 1)
        (draft,) = mine.branch([5])
        theirs = other.append([4])
        calls = [[(mine, [draft]), (other, theirs)]] if together else [[(mine, [2])], [(mine, [draft])]]
        for work in calls:
            emulated.advance(work, CONFIG.num_layers)
        states.append(emulated.hidden([(mine, [draft])]))
    assert np.isfinite(states[0]).all()
    assert np.array_equal(*states)


@pytest.mark.parametrize("spoiled", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_told_of(spoiled: float) -> None:
    if compiler() is None:
        pytest.skip("no C++ compiler: the kernels' logic is not run on the host")
    model = random_model(SHAPES["tiles-short"], seed=1, kind="bf16")
    model.weights["final_norm", -1][5] = spoiled
    model.weights["head", -1][7, 5] = 0  # 0 times infinity is not a number
    launcher = LibraryLauncher(fresh_seed("order of threads"))
    backend = CudaBackend(model.config, model.slabs(), "bf16", device="cpu", launcher=launcher)
    sequence = backend.sequence(4)
    work = [(sequence, sequence.append([1, 2]))]
    backend.advance(work, 1)
    with pytest.raises(NumericalError, match="row 0 of 2"):
        backend.argmax(work)
    with pytest.raises(NumericalError, match="row 0 of 2"):
        backend.draft(work, [Sampling(), Sampling(1.0)])


class Sanitised:
    """Every launch of a step in the emulator under sanitizers, with arrays that end where they end."""

    def __init__(self, program: Any) -> None:
        self._launcher = EmulatedLauncher(program, fresh_seed("order of threads"))

    def launch(self, kernel: str, grid: tuple[int, int, int], threads: int, arguments: Seq[Any]) -> None:
        seen: dict[tuple[int, int], np.ndarray] = {}
        given: list[Any] = []
        for argument in arguments:
            if not isinstance(argument, torch.Tensor):
                given.append(argument)
                continue
            array = (
                argument.view(torch.int16).numpy() if argument.dtype == torch.bfloat16 else argument.numpy()
            )
            given.append(seen.setdefault((argument.data_ptr(), argument.numel()), array))
        self._launcher.launch(kernel, grid, threads, given)


@pytest.mark.parametrize("weights", ["bf16", "int4"])
def test_no_kernel_of_an_emulated_step_strays(emulator: Any, emulated: CudaBackend, weights: Any) -> None:
    model = random_model(SHAPES["tiles-short"], seed=1, kind=weights)
    results = []
    for launcher in (Sanitised(emulator), LibraryLauncher()):
        backend = CudaBackend(model.config, model.slabs(), weights, device="cpu", launcher=launcher)
        sequence = backend.sequence(8, poison=True)
        backend.advance([(sequence, sequence.append([1, 2, 3]))], 1)
        tree = sequence.branch([4, 5], [-1, -1])
        backend.advance([(sequence, tree)], model.config.num_layers)
        results.append(backend.logits([(sequence, tree)]))
    assert np.isfinite(results[0]).all()
    assert np.array_equal(*results)
