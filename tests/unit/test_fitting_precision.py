"""Halves are trained in where the processor multiplies them itself, and nowhere else."""

from __future__ import annotations

import platform
from types import SimpleNamespace

import pytest
import torch

from specee.fitting import precision

BF16, TILES = "_is_avx512_bf16_supported", "_is_amx_tile_supported"


@pytest.mark.parametrize(
    ("machine", "able", "fast"),
    [
        ("x86_64", {BF16: False, TILES: False}, False),  # AVX-512 up to Ice Lake
        ("AMD64", {BF16: True, TILES: False}, True),
        ("x86_64", {BF16: False, TILES: True}, True),
        ("x86_64", {}, False),  # a release that cannot tell
        ("aarch64", {BF16: False, TILES: False}, True),  # oneDNN asks the processor there
    ],
)
def test_who_is_asked(
    machine: str, able: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(
        torch, "cpu", SimpleNamespace(**{name: lambda is_=is_: is_ for name, is_ in able.items()})
    )
    known = SimpleNamespace(_is_mkldnn_bf16_supported=lambda: True)
    monkeypatch.setattr(torch, "ops", SimpleNamespace(mkldnn=known))
    assert precision.halves_are_fast() is fast


def test_products_follow_it() -> None:
    assert (precision.PRODUCTS is torch.bfloat16) is precision.halves_are_fast()
    with precision.autocast():
        made = torch.ones(2, 2) @ torch.ones(2, 2)
    assert made.dtype is precision.PRODUCTS
    with precision.autocast(enabled=False):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype is torch.float32
