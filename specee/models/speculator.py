"""What a speculator file holds: parts fitted to a frozen model that make its drafts better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Adapter:
    """A residual bottleneck on a hidden state h: ``h + up @ silu(down @ rms_norm(h, norm))``.

    ``norm`` (hidden_size,), ``down`` (width, hidden_size), ``up`` (hidden_size, width), fp32. The products
    are bf16 ones: weights and inputs rounded to bf16, sums in fp32. (Houlsby et al., 2019)
    """

    norm: Floats
    down: Floats
    up: Floats


@dataclass(frozen=True)
class Speculator:
    """Fitted parts of one model.

    ``vocabulary``: ids that drafts may have (tokens,), None for all. ``adapters``: by the exit layer, counted
    from 1, whose hidden state they take.
    """

    vocabulary: Ints | None = None
    adapters: Mapping[int, Adapter] = field(default_factory=dict)
