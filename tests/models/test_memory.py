"""Reading slabs holds a few of them at a time, never the checkpoint."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from specee.models.checkpoint import Checkpoint, open_checkpoint
from specee.types import WeightFormat
from tests.tiny_models import tiny_folder

MIB = 1 << 20


def peak_while_reading(checkpoint: Checkpoint, weights: WeightFormat | None = None) -> int:
    """Bytes allocated at the peak (numpy reports its buffers to tracemalloc)."""
    formats = None if weights is None else checkpoint.formats(weights)
    tracemalloc.start()
    try:
        for _slab in checkpoint.slabs(formats):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_safetensors(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=1, vocab_size=100_000, hidden_size=128)
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert size > 90 * MIB
    # A slab of 8 MiB, the next one being read, and the mask of the finiteness check.
    assert peak_while_reading(open_checkpoint(folder)) < 32 * MIB
    # And the blocks that gguf makes of it, 16 rows at a time, with their concatenation.
    assert peak_while_reading(open_checkpoint(folder), "int4") < 40 * MIB


def resident_file_pages() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssFile in /proc/self/status")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_no_file_stays_mapped(tmp_path: Path) -> None:
    folder = tiny_folder("llama", tmp_path, seed=1, vocab_size=100_000, hidden_size=128)
    checkpoint = open_checkpoint(folder)
    before = resident_file_pages()
    highest = max(resident_file_pages() for _slab in checkpoint.slabs())
    # Code of libraries is paged in meanwhile; the file itself is over 90 MiB.
    assert highest - before < 32 * MIB
    assert "model.safetensors" not in Path("/proc/self/maps").read_text()


@pytest.mark.model
def test_default_model() -> None:
    checkpoint = open_checkpoint()
    # Dequantisation holds the packed rows, its parts and their concatenation.
    assert peak_while_reading(checkpoint) < 40 * MIB
    assert peak_while_reading(checkpoint, "packed") < 16 * MIB
    assert checkpoint.format == "gguf Q4_1/Q8_0"
    assert (checkpoint.config.num_layers, checkpoint.eos_token_ids) == (30, (2,))
    assert sum(slab.array.size for slab in checkpoint.slabs()) == 134_515_008
