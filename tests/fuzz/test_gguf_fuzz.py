"""Malicious GGUF files: a few seconds of random ones, and those that matter most by name.

The long run, under sanitizers, is scripts/fuzz_gguf.py.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import specee
from specee.errors import CheckpointError

from . import cases, layout, sound

WORD = 1 << 64
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="measures memory through /proc")


def run_loop(work: Path, seed: int, seconds: float, *options: str) -> subprocess.CompletedProcess[str]:
    """The loop in a process of its own, which a finding may crash."""
    (work / "specee_fuzz").symlink_to(Path(__file__).parent)
    command = [sys.executable, "-m", "specee_fuzz", "--work", str(work), "--seed", str(seed)]
    command += ["--seconds", str(seconds), "--address-space", "4096", *options]
    settings = {"OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        command, cwd=work, capture_output=True, text=True, check=False, env=os.environ | settings
    )
    print(f"seed {seed}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


@ON_LINUX
def test_random_damage(tmp_path: Path) -> None:
    done = run_loop(tmp_path, random.SystemRandom().randrange(1 << 32), 6.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(tmp_path.glob("*.gguf"))
    for damage in ("truncated", "overlap", "oversized", "bent_offset"):
        assert re.search(rf"^{damage} .*CheckpointError \d+", done.stdout, re.MULTILINE), damage
    assert re.search(r"^reshaped .*loaded \d+", done.stdout, re.MULTILINE), (
        "files that load are needed as well"
    )


@ON_LINUX
@pytest.mark.parametrize("bug", ["trusted-sizes", "trusted-places", "raw-errors"])
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    """The property above can fail, and what is printed and left repeats the failure."""
    done = run_loop(tmp_path, 7, 60.0, "--plant", bug)
    found = re.search(r"^seed 7, case (\d+) ", done.stdout, re.MULTILINE)
    assert done.returncode == 1
    assert found is not None
    left = tmp_path / f"seed-7-case-{found[1]}.gguf"
    assert left.read_bytes() == cases.make_case(7, int(found[1])).data


def test_a_seed_names_its_cases() -> None:
    def first(seed: int) -> list[cases.Case]:
        return [cases.make_case(seed, number) for number in range(30)]

    assert first(3) == first(3)
    assert first(3) != first(4)


@pytest.mark.parametrize("origin", sound.FILES)
def test_the_undamaged_files_load(origin: str, tmp_path: Path) -> None:
    path = tmp_path / "sound.gguf"
    path.write_bytes(sound.sound_file(origin))
    model = specee.load(path, backend="cpu", threads=2)
    assert model.generate([0, 1, 2], max_new_tokens=1, do_sample=False)


def offset_of(
    name: str, offset: Callable[[layout.Layout, layout.Tensor], int]
) -> Callable[[layout.Layout], None]:
    def change(file: layout.Layout) -> None:
        tensor = next(tensor for tensor in file.tensors() if tensor.name == name)
        tensor.offset.value = offset(file, tensor)

    return change


def dims_of(name: str, *dims: int) -> Callable[[layout.Layout], None]:
    def change(file: layout.Layout) -> None:
        tensor = next(tensor for tensor in file.tensors() if tensor.name == name)
        for field, value in zip(tensor.dims, dims, strict=True):
            field.value = value

    return change


def number_of(label: str, value: int) -> Callable[[layout.Layout], None]:
    def change(file: layout.Layout) -> None:
        file.labelled(label)[0].value = value

    return change


def start_of(file: layout.Layout, name: str) -> int:
    return next(tensor.offset.number for tensor in file.tensors() if tensor.name == name)


# The embedding of this file is 21 rows of two Q8_0 blocks of 34 bytes.
ORIGIN, EMBEDDING, NORM = "mixed", "token_embd.weight", "output_norm.weight"
OUTSIDE = r"should be at bytes -?\d+ to -?\d+ \(alignment 32\), the file has"


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        # Overlapping.
        (
            offset_of(NORM, lambda file, _: start_of(file, EMBEDDING)),
            r"tensors '.*' and '.*' overlap at byte",
        ),
        (
            offset_of(NORM, lambda file, _: start_of(file, EMBEDDING) + 1408),
            r"overlap at byte",
        ),  # its last 20
        (offset_of(EMBEDDING, lambda file, _: start_of(file, NORM) - 1408), r"overlap at byte"),
        # Past the end, by any distance.
        (offset_of(EMBEDDING, lambda file, tensor: len(file.data) - tensor.size // 32 * 32), OUTSIDE),
        (offset_of(EMBEDDING, lambda file, _: len(file.data) // 32 * 32 + 32), OUTSIDE),
        (offset_of(EMBEDDING, lambda *_: 1 << 40), OUTSIDE),
        (offset_of(EMBEDDING, lambda *_: 1 << 63), OUTSIDE),
        # Off the grid.
        (
            offset_of(EMBEDDING, lambda _, tensor: tensor.offset.number + 2),
            r"should be at bytes .*alignment 32",
        ),
        # In 64 bits: the tensor at byte 0, its end at byte 0, at its own place, and one step before it.
        (offset_of(EMBEDDING, lambda file, _: WORD - file.data_begin), OUTSIDE),
        (offset_of(EMBEDDING, lambda file, tensor: WORD - file.data_begin - tensor.size // 32 * 32), OUTSIDE),
        (offset_of(EMBEDDING, lambda *_: WORD - 32), OUTSIDE),
        (offset_of(EMBEDDING, lambda *_: WORD - 1), OUTSIDE),
        # Oversized. In 64 bits the number of elements is 0, what it was, and the number of bytes what it was.
        (dims_of(EMBEDDING, 64, 1 << 20), OUTSIDE),
        (dims_of(EMBEDDING, 64, 1 << 58), OUTSIDE),
        (dims_of(EMBEDDING, 64, 21 + (1 << 58)), OUTSIDE),
        (dims_of(EMBEDDING, 64, 21 + (1 << 62)), OUTSIDE),
        (dims_of(EMBEDDING, WORD - 32, WORD - 1), OUTSIDE),
        (dims_of(NORM, 64 + (1 << 62)), OUTSIDE),
        (dims_of(EMBEDDING, 64, 0), r"has shape \(0, 64\)"),
        # Counts and lengths: in 64 bits the sizes they stand for are small.
        (number_of("tensor-count", (1 << 61) + 1), r"needs \d+ bytes, but the file has"),
        (number_of("entry-count", WORD - 1), r"needs \d+ bytes, but the file has"),
        (number_of("key-length", WORD - 8), r"needs 18446744073709551608 bytes, but the file has"),
        (number_of("name-length", 1 << 63), r"needs 9223372036854775808 bytes, but the file has"),
        (number_of("item-count", 1 << 61), r"needs \d+ bytes, but the file has"),
        (number_of("rank", 1 << 31), r"has 2147483648 dimensions; 1 to 4 are allowed"),
    ],
)
def test_lies_about_places_and_sizes(
    damage: Callable[[layout.Layout], None], words: str, tmp_path: Path
) -> None:
    file = sound.sound_layout(ORIGIN)
    damage(file)
    path = tmp_path / "bad.gguf"
    path.write_bytes(file.packed())
    with pytest.raises(CheckpointError, match=words):
        specee.load(path, backend="cpu", threads=2)


@pytest.mark.parametrize("origin", sound.FILES)
def test_truncation_at_every_boundary(origin: str, tmp_path: Path) -> None:
    """After each field of the header, and at both ends of each tensor."""
    file = sound.sound_layout(origin)
    cuts, at = {0}, 0
    for field in file.fields:
        at += len(field.packed())
        cuts.add(at)
    last = 0
    for tensor in file.tensors():
        begin = file.data_begin + tensor.offset.number
        last = max(last, begin + tensor.size)
        cuts |= {begin, begin + 1, begin + tensor.size - 1}
    path = tmp_path / "cut.gguf"
    for cut in sorted(cut for cut in cuts if cut < last):
        path.write_bytes(file.packed()[:cut])
        with pytest.raises(CheckpointError, match=r"cut\.gguf: "):
            specee.load(path, backend="cpu", threads=2)
