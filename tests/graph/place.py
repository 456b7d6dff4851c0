"""Where models are run as rounds, and which driver makes graphs there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.graph.fake_driver import FakeDriver, FakeLauncher


@dataclass
class Place:
    """A device, what launches kernels there, and the driver's library."""

    device: str
    launcher: Any
    library: str


def emulated(fake: FakeDriver) -> Place:
    """The host, with the fake driver."""
    return Place("cpu", FakeLauncher(fake), fake.path)
