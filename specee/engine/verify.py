"""The full model's tokens after every node of the trees of a step, drawn as their requests ask."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import TypeAlias

import numpy as np

from specee.acceptance import probabilities, rejection_token
from specee.backends.protocol import Backend, Floats, Work
from specee.clock import Clock
from specee.drafting import DraftTree
from specee.engine.sequence import ActiveSequence
from specee.errors import ConfigurationError
from specee.sampling import penalised, sample

Target: TypeAlias = Callable[[int, list[int]], int]
Pair: TypeAlias = tuple[ActiveSequence, DraftTree]


def targets(backend: Backend, pairs: Seq[Pair], clock: Clock) -> list[Target]:
    """For each tree what :func:`specee.acceptance.walk` asks: the token after a node.

    All rows of all trees go through the head at once. Where scores have to come to Python (processors of
    the user, classical rejection), a token is judged when it is asked for: once, on an accepted prefix.
    """
    plain = [pair for pair in pairs if not _judged(pair)]
    judged = [pair for pair in pairs if _judged(pair)]
    drawn = iter(_draw(backend, plain, clock)) if plain else iter(())
    scored = iter(_score(backend, judged, clock)) if judged else iter(())
    return [_judge(*pair, next(scored)) if _judged(pair) else _read(next(drawn)) for pair in pairs]


def _judged(pair: Pair) -> bool:
    return bool(pair[0].request.processors) or pair[1].rejection


def _work(pairs: Seq[Pair]) -> Work:
    return [(tree.state, tree.slots) for _, tree in pairs]


def _draw(backend: Backend, pairs: Seq[Pair], clock: Clock) -> list[list[int]]:
    """Tokens of the built-in rules, drawn by the backend: one for each node."""
    options = [tree.sampling for _, tree in pairs for _ in tree.slots]
    if all(option.temperature == 0 and option.repetition_penalty == 1 for option in options):
        tokens = clock.timed("head", backend.argmax, _work(pairs)).tolist()
    else:
        tokens = clock.timed("head", backend.sample, _work(pairs), options).tolist()
    found, begin = [], 0
    for _, tree in pairs:
        found.append(tokens[begin : begin + len(tree.slots)])
        begin += len(tree.slots)
    return found


def _score(backend: Backend, pairs: Seq[Pair], clock: Clock) -> list[Floats]:
    """Logits of each tree's nodes: (nodes, vocab_size)."""
    logits = clock.timed("head", backend.logits, _work(pairs))
    return np.split(logits, np.cumsum([len(tree.slots) for _, tree in pairs])[:-1])


def _read(tokens: list[int]) -> Target:
    return lambda node, _: tokens[node]


def _judge(sequence: ActiveSequence, tree: DraftTree, logits: Floats) -> Target:
    sampling = tree.sampling

    def target(node: int, tokens: list[int]) -> int:
        text = [*sequence.text, *tokens]
        scores = penalised(logits[node], text, sampling.repetition_penalty)
        for processor in sequence.request.processors:
            scores = _processed(processor(np.array(text, np.int64), scores), len(scores))
        if not tree.rejection:
            return sample(scores, sampling, len(text))
        drafts = [(tree.tokens[child], tree.distributions[child]) for child in tree.children(node)]
        return rejection_token(probabilities(scores, sampling), drafts, sampling.seed, len(text))

    return target


def _processed(scores: Floats, vocabulary: int) -> Floats:
    """What a processor returned, if it can be scores."""
    array = np.asarray(scores, np.float32)
    if array.shape != (vocabulary,) or np.isnan(array).any() or not (array > -np.inf).any():
        raise ConfigurationError(
            f"a processor returned scores of shape {array.shape}: allowed is ({vocabulary},), without NaN "
            "and with at least one token above minus infinity"
        )
    return array
