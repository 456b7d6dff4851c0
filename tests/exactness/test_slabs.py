"""What every backend makes of weights as files hold them: pieces that do not fit, numbers of 16 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from specee.errors import CheckpointError
from specee.models.table import Slab
from tests.engines import Engine, all_engines
from tests.exactness.test_conformance import started
from tests.random_model import BASE, SHAPES, random_model

pytestmark = pytest.mark.parametrize("engine", all_engines())


def test_incomplete_or_misfitting_weights_are_refused(engine: Engine) -> None:
    name, weights = engine.plain
    model = random_model(SHAPES[name], seed=1, kind=weights)
    partial = replace(model, weights={key: a for key, a in model.weights.items() if key != ("up", 1)})
    with pytest.raises(CheckpointError, match="up"):
        engine.load(partial, weights)
    wide = replace(
        model, weights=model.weights | {("up", 1): np.zeros((model.config.intermediate_size, 33), np.float32)}
    )
    with pytest.raises(CheckpointError, match="up"):
        engine.load(wide, weights)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_slabs_of_sixteen_bits_are_read_exactly(engine: Engine, kind: str, weights: str) -> None:
    """bf16 bit patterns and fp16 values give what their fp32 widenings give."""
    model = random_model(BASE, seed=5)
    narrow, wide = {}, {}
    for key, array in model.weights.items():
        if kind == "bf16":
            bits = (np.ascontiguousarray(array).view(np.uint32) >> 16).astype(np.uint16)
            narrow[key], wide[key] = bits, (bits.astype(np.uint32) << 16).view(np.float32)
        else:
            narrow[key] = array.astype(np.float16)
            wide[key] = narrow[key].astype(np.float32)
    logits = []
    for arrays in (narrow, wide):
        backend = engine.load(_WithSlabs(BASE, arrays), weights)
        sequence = started(backend)
        logits.append(backend.logits([(sequence, [3])]))
    assert np.array_equal(*logits)


class _WithSlabs:
    """Arrays of any slab dtype under a configuration, one slab a tensor."""

    def __init__(self, config: object, arrays: dict[tuple[str, int], np.ndarray]) -> None:
        self.config, self._arrays = config, arrays

    def slabs(self) -> list[Slab]:
        forms = {"float32": "F32", "float16": "F16", "uint16": "BF16"}
        return [Slab(*key, 0, array, forms[str(array.dtype)]) for key, array in self._arrays.items()]
