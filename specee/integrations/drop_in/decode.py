"""Decode what transformers has prepared, or say why not."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from specee.errors import ConfigurationError
from specee.integrations.drop_in import reasons, result, scores, stops
from specee.integrations.drop_in.accelerated import Accelerated
from specee.integrations.drop_in.call import Call
from specee.integrations.drop_in.lockstep import decode_lockstep
from specee.integrations.drop_in.rows import decode_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decode(owner: Accelerated, model: PreTrainedModel, call: Call, stock: Callable[[], Any]) -> Any:
    """What ``GenerationMixin._sample`` returns, by our engine, or by ``stock`` with a warning.

    The streamer is ended, unless this raises. Raises ConfigurationError for token ids, seeds, policies and
    processed scores that cannot be, OutOfMemoryError, NumericalError, and what the user's callbacks raise.
    """
    engine, reason = owner.ready(model)
    if engine is not None:
        reason = reasons.of_call(call, engine.config)
    if engine is None or reason is not None:
        owner.tell(reason or "there is no engine")
        return stock()
    _check_ids(call, engine.config.vocab_size)
    policy = owner.policy_for(call.asked.policy)
    seeds = scores.seeds(call.asked.seed, call.rows) if call.sampled else [0] * call.rows
    rules, ends = scores.rules(call), stops.ends(call)
    alone = call.rows == 1
    if alone or (rules.by_row and ends.by_row and call.streamer is None):
        done = decode_rows(owner, engine, call, rules, ends, seeds, policy)
    else:
        engine.check_policy(policy)
        done = decode_lockstep(engine, call, seeds, owner.lock)
    output = result.finish(call, done, model)
    if alone:
        with owner.lock:
            owner.kept.put(engine, done.states[0])
    if call.streamer is not None:
        call.streamer.end()
    return output


def _check_ids(call: Call, vocabulary: int) -> None:
    wrong = call.ids[(call.ids < 0) | (call.ids >= vocabulary)]
    if wrong.numel():
        raise ConfigurationError(
            f"input_ids holds {int(wrong[0])}: allowed are 0..{vocabulary - 1}, the model's vocabulary"
        )
