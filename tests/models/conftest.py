from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Tiny models run faster on one thread than the start of more takes."""
    torch.set_num_threads(1)
