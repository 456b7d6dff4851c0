"""Plain decoding of a real model that keeps what every layer says: the traces of :mod:`specee.replay`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Sequence as Seq

import numpy as np

from specee.backends.protocol import Backend, SequenceState
from specee.engine import LatencyMeter
from specee.errors import ConfigurationError
from specee.policies import Latency
from specee.replay.trace import POSITIONS, Text, Trace
from specee.types import KVDtype


def record(
    backend: Backend,
    prompts: Seq[Seq[int]],
    tokens: int,
    *,
    name: str = "",
    eos: Collection[int] = (),
    latency: Latency | None = None,
    kv_dtype: KVDtype | None = None,
) -> Trace:
    """Continue each prompt greedily by ``tokens`` tokens, or up to one of ``eos``.

    ``latency``: what steps cost, measured if None. Raises ConfigurationError for no or an empty prompt,
    CapacityError for one that does not fit the context.
    """
    made = recording(backend, prompts, tokens, eos=eos, kv_dtype=kv_dtype)
    texts = tuple(made)
    prices = latency if latency is not None else LatencyMeter(backend).table()
    return Trace(name, backend.config.num_layers, prices, texts)


def recording(
    backend: Backend,
    prompts: Seq[Seq[int]],
    tokens: int,
    *,
    eos: Collection[int] = (),
    kv_dtype: KVDtype | None = None,
) -> Iterator[Text]:
    """The texts of :func:`record` one by one."""
    if tokens < 1:
        raise ConfigurationError(f"tokens={tokens}: allowed is 1 or more")
    for prompt in prompts:
        if not prompt:
            raise ConfigurationError("a prompt is empty: at least one token is needed to continue from")
        state = backend.sequence(len(prompt) + tokens, kv_dtype)
        yield _text(backend, state, list(prompt), tokens, eos)


def _text(backend: Backend, state: SequenceState, text: list[int], tokens: int, eos: Collection[int]) -> Text:
    layers = range(1, backend.config.num_layers + 1)
    prompt = len(text)
    state.keep(layers, POSITIONS)
    newest = state.append(text)[-1]
    seen, drafts, confidences = max(0, prompt - POSITIONS), [], []
    while True:
        [token], _, _ = backend.verify([(state, [newest])], None)
        text.append(int(token))
        over = len(text) == prompt + tokens or text[-1] in eos
        if over or newest + 1 - seen >= POSITIONS:
            found = backend.shadow([(state, range(seen, newest + 1))], layers)
            drafts.append(found[0])
            confidences.append(found[1])
            seen = newest + 1
        if over:
            break
        newest = state.append(text[-1:])[0]
    said = np.concatenate(drafts).astype(np.int32)
    said[prompt - len(text) :, -1] = text[prompt:]
    return Text(np.array(text, np.int32), prompt, said, np.concatenate(confidences).astype(np.float32))
