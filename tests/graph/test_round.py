"""Decode rounds: exits where they are scripted, drafts that stay, as a graph and kernel by kernel."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specee.cuda import block_record, exit_record, given_record, record
from specee.cuda.decode import DecodeRound, Model, decode_round
from specee.cuda.graph import Means
from specee.cuda.program import If, While
from specee.cuda.record import SequencePlan, encode
from specee.cuda.round import begin_round
from specee.cuda.tiles import row_tiles
from specee.errors import ConfigurationError
from tests.cuda.emulator import ROOT, compiler
from tests.graph import toy_model
from tests.graph.fake_driver import FakeDriver, FakeLauncher, call_compiler
from tests.graph.toy_model import HIDDEN, VOCAB, ToyModel

LAYERS = 4


class Both:
    """The same round as a graph and kernel by kernel, on arrays of its own each."""

    def __init__(self, fake: FakeDriver, seed: int, each: int = 1, sequences: int = 2, **toy: Any) -> None:
        self.fake, self.toys, self.rounds = fake, [], []
        self.product = f"linear_bf16_{row_tiles(sequences * each)}"  # one of each layer, and one of the head
        self.launcher = FakeLauncher(fake)
        for plain in (False, True):
            rng = np.random.default_rng(seed)
            states = rng.normal(0, 1, (sequences * each, HIDDEN)).astype(np.float32)
            model = ToyModel(states, LAYERS, sequences, rng, **toy)
            state = toy_model.state(LAYERS, sequences, each)
            parts = model.parts(state)
            means = Means(self.launcher, self.launcher.function, fake.path, one_by_one=plain)
            one = DecodeRound(state, parts, means)
            assert one.how == ("launches" if plain else "graph")
            self.toys.append(model)
            self.rounds.append(one)

    def run(self, *plan: Any) -> tuple[int, tuple[record.SequenceOutcome, ...]]:
        """What both say, and how many of the layers' kernels ran."""
        found = []
        for toy, one in zip(self.toys, self.rounds, strict=True):
            toy.begin()
            before = {name: self.fake.ran(name) for name in (self.product, "accept_drafts")}
            answer = one.run(*plan)
            ran = {name: self.fake.ran(name) - count for name, count in before.items()}
            found.append((answer, ran, toy.h.tobytes()))
        assert found[0] == found[1]
        (layers, outcomes), self.ran, _ = found[0]
        assert self.ran["accept_drafts"] == 1
        assert self.ran[self.product] == layers + 1, "a layer's body runs or it does not"
        return layers, outcomes


@pytest.mark.parametrize("running", [range(LAYERS), [1, 3], [2], []])
def test_layers_that_a_plan_leaves_out_do_not_run(
    fake: FakeDriver, rng: np.random.Generator, running: list[int]
) -> None:
    both = Both(fake, int(rng.integers(2**32)))
    layers, outcomes = both.run(running, [SequencePlan(5, 11), SequencePlan(6, 12)])
    assert layers == len(running)
    assert [one.tokens for one in outcomes] == [(int(t),) for t in both.toys[0].accepted.next_tokens]


def test_drafts_end_with_the_plan_or_in_doubt(fake: FakeDriver, rng: np.random.Generator) -> None:
    """The same token is drafted each time: how often is the plan's, whether it stays the targets'."""
    seed = int(rng.integers(2**32))
    probe = Both(fake, seed, each=4, sequences=3)
    plans = [SequencePlan(token, 20 + token) for token in range(3)]
    _, outcomes = probe.run(range(LAYERS), plans)
    targets = np.asarray(probe.toys[0].accepted.targets).reshape(3, 4)
    # The first sequence drafts what its first row wants; the second something else; the third nothing.
    wrong = (int(targets[1, 0]) + 1) % VOCAB
    drafts = np.array([targets[0, 0], wrong, 7])
    confidences = np.array([0.8, 0.8, 0.8], np.float32)
    both = Both(fake, seed, each=4, sequences=3, drafts=drafts, confidences=confidences)
    plans = [
        SequencePlan(0, 20, drafts=2, floor=0.5),
        SequencePlan(1, 21, drafts=3, floor=0.9),
        SequencePlan(2, 22),
    ]
    before = fake.ran("take_drafts")
    _, outcomes = both.run(range(LAYERS), plans)
    assert fake.ran("take_drafts") - before == 2 * 2, "each way, as often as the longest draft"
    assert [one.drafted for one in outcomes] == [2, 1, 0], "a draft in doubt is the last"
    first = targets[0].tolist()
    kept = 0
    while kept < 2 and first[kept] == drafts[0]:
        kept += 1
    assert kept >= 1
    assert outcomes[0].accepted == kept
    assert outcomes[0].tokens == tuple(first[: kept + 1])
    assert (outcomes[1].accepted, outcomes[1].tokens) == (0, (int(targets[1, 0]),))
    assert (outcomes[2].accepted, outcomes[2].tokens) == (0, (int(targets[2, 0]),))


def test_rows_get_the_plans_draws(fake: FakeDriver, rng: np.random.Generator) -> None:
    """Seeds and temperatures of their sequence, and positions behind their own."""
    state = toy_model.state(LAYERS, 3, 4)
    launcher = FakeLauncher(fake)
    seeds = [int(seed) for seed in rng.integers(2**63, size=2)]
    plans = [SequencePlan(9, 100, 2, temperature=0.5, seed=seeds[0]), SequencePlan(8, 7, seed=seeds[1])]
    state.plan[:] = np.frombuffer(encode([0, 2], plans), np.uint8)
    begin_round(launcher, state)
    assert state.draws.positions.tolist() == [101, 102, 103, 104, 8, 9, 10, 11, -7, -7, -7, -7]
    assert state.draws.seeds.tolist() == [seeds[0]] * 4 + [seeds[1]] * 4 + [7] * 4
    assert state.draws.temperatures.tolist()[:8] == [0.5] * 4 + [0.0] * 4
    assert state.tokens.tolist() == [9, -3, -3, -3, 8, -3, -3, -3, -7, -7, -7, -7]
    assert state.newest.tolist() == [0, 4, -7]
    assert state.runs.tolist() == [1, 0, 1, 0]
    assert state.drafts.tolist() == [1]


def test_what_a_round_consists_of(rng: np.random.Generator) -> None:
    states = rng.normal(0, 1, (8, HIDDEN)).astype(np.float32)
    drafts = np.zeros(2, np.int32), np.zeros(2, np.float32)
    toy = ToyModel(states, LAYERS, 2, rng, *drafts)
    state = toy_model.state(LAYERS, 2, 4)
    first, loop, *rest = decode_round(state, toy.parts(state))
    layers, last = rest[:LAYERS], rest[-1]
    assert [step.kernel for step in (first, last)] == ["begin_round", "end_round"]  # type: ignore[union-attr]
    assert isinstance(loop, While)
    assert [step.kernel for step in loop.body] == ["take_drafts"]  # type: ignore[union-attr]
    assert not [step for step in rest[LAYERS:] if isinstance(step, If)], "the head runs always"
    for number, layer in enumerate(layers):
        assert isinstance(layer, If)
        assert (layer.condition.values is state.runs, layer.condition.index) == (True, number)


def test_rounds_that_do_not_fit_are_refused(fake: FakeDriver, rng: np.random.Generator) -> None:
    both = Both(fake, int(rng.integers(2**32)), each=2)
    one = SequencePlan(1, 1)
    with pytest.raises(
        ConfigurationError, match="3 sequences with up to 0 drafts: this round has room for 2, and 1"
    ):
        both.rounds[0].run([0], [one] * 3)
    with pytest.raises(ConfigurationError, match="with up to 2 drafts"):
        both.rounds[0].run([0], [SequencePlan(1, 1, drafts=2)])
    with pytest.raises(ConfigurationError, match=r"layers: 256; allowed are 0..255"):
        encode([256], [one])
    with pytest.raises(ConfigurationError, match=r"18 drafts in a round: allowed are 0..17"):
        encode([0], [SequencePlan(1, 1, drafts=18)])
    with pytest.raises(ConfigurationError, match=r"0 sequences in a round: allowed are 1..64"):
        encode([0], [])
    state = toy_model.state(LAYERS, 2, 1)
    parts = both.toys[0].parts(state)
    with pytest.raises(ConfigurationError, match="drafts with one row a sequence"):
        decode_round(state, Model(parts.layer, parts.head, draft=lambda _: both.toys[0].drafted))
    with pytest.raises(ConfigurationError, match="300 layers, 2 sequences, 2 rows"):
        toy_model.state(300, 2, 1).sizes()


OFFSETS = """
#include <cstddef>
#include <cstdio>
#include "specee/block_record.h"
#include "specee/exit_record.h"
#include "specee/given_record.h"
using namespace specee;
#define AT(Type, member) std::printf("%s %zu\\n", #member, offsetof(Type, member));
int main() {
  std::printf("%d %d %d\\n", kRoundLayers, kRoundSequences, kRoundTokens);
  std::printf("%d %d\\n", kExitRows, kExitCandidates);
"""


def test_python_lays_records_out_as_the_header_does(tmp_path: Path) -> None:
    if compiler() is None:
        pytest.skip("no C++ compiler: the header is not compiled")
    dtypes = {
        "SequencePlan": record.SEQUENCE_PLAN,
        "RoundPlan": record.ROUND_PLAN,
        "SequenceResult": record.SEQUENCE_RESULT,
        "RoundResult": record.ROUND_RESULT,
        "ExitSequencePlan": exit_record.EXIT_SEQUENCE_PLAN,
        "ExitPlan": exit_record.EXIT_PLAN,
        "ExitOutcome": exit_record.EXIT_OUTCOME,
        "ExitResult": exit_record.EXIT_RESULT,
        "SequenceBlock": block_record.SEQUENCE_BLOCK,
        "BlockPlan": block_record.BLOCK_PLAN,
        "GivenDrafts": given_record.GIVEN_DRAFTS,
        "GivenPlan": given_record.GIVEN_PLAN,
    }
    lines, expected = [], ["256 64 18", "17 16"]
    for name, dtype in dtypes.items():
        lines.append(f'  std::printf("{name} %zu\\n", sizeof({name}));')
        expected.append(f"{name} {dtype.itemsize}")
        assert dtype.fields is not None
        for member, (_, offset, *_) in dtype.fields.items():
            lines.append(f"  AT({name}, {member})")
            expected.append(f"{member} {offset}")
    source = tmp_path / "offsets.cpp"
    source.write_text(OFFSETS + "\n".join(lines) + "\n}\n")
    call_compiler("-std=c++17", f"-I{ROOT / 'csrc' / 'include'}", source, "-o", tmp_path / "offsets")
    said = subprocess.run([tmp_path / "offsets"], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == expected
    sizes = (record.ROUND_LAYERS, record.ROUND_SEQUENCES, record.ROUND_TOKENS)
    assert " ".join(map(str, sizes)) == expected[0]
    assert f"{exit_record.EXIT_ROWS} {exit_record.EXIT_CANDIDATES}" == expected[1]
