"""One call of a decoding loop, as transformers has prepared it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from specee.integrations.drop_in.reasons import named

if TYPE_CHECKING:
    import torch
    from transformers import GenerationConfig

    from specee.policies import Policy


@dataclass(frozen=True)
class Asked:
    """What was said to us and not to transformers."""

    seed: int | Seq[int] | None = None
    policy: str | Policy | None = None
    own_cache: bool = False
    """Whether the caller gave a cache, and wants it filled."""


@dataclass(frozen=True)
class Call:
    """Arguments of ``GenerationMixin._sample``.

    ``ids`` are (rows, width) prompts padded on the left, repeated for ``num_return_sequences``.
    ``processors`` and ``criteria`` are complete: the configuration's and the user's. ``others`` are for the
    model.
    """

    ids: torch.Tensor
    processors: Any
    criteria: Any
    config: GenerationConfig
    others: Mapping[str, Any]
    streamer: Any = None
    synced_gpus: bool = False
    asked: Asked = Asked()

    @property
    def rows(self) -> int:
        """How many texts are continued."""
        return int(self.ids.shape[0])

    @cached_property
    def mask(self) -> torch.Tensor:
        """(rows, width) bool, False where there is padding."""
        import torch

        given = self.others.get("attention_mask")
        return torch.ones_like(self.ids, dtype=torch.bool) if given is None else given.bool()

    @cached_property
    def pads(self) -> list[int]:
        """How much padding each row has."""
        counts: list[int] = (~self.mask).sum(dim=1).tolist()
        return counts

    @property
    def cache(self) -> Any:
        """Where transformers would keep keys and values, None if it would not."""
        return named(self.others)

    @property
    def budget(self) -> int:
        """New tokens at most; one where the prompt has reached a criterion's limit, as in transformers."""
        limits = [c.max_length for c in self.criteria if type(c).__name__ == "MaxLengthCriteria"]
        return max(1, int(min(limits, default=self.config.max_length)) - int(self.ids.shape[1]))

    @property
    def sampled(self) -> bool:
        """Whether tokens are drawn by chance."""
        return bool(self.config.do_sample)

    @property
    def record(self) -> bool:
        """Whether more than the tokens is to be returned."""
        return bool(self.config.return_dict_in_generate)

    @property
    def keeps_scores(self) -> bool:
        """Whether processed scores are to be returned, and shown to stopping criteria."""
        return self.record and bool(self.config.output_scores)

    @property
    def keeps_logits(self) -> bool:
        """Whether raw scores are to be returned."""
        return self.record and bool(self.config.output_logits)

    @property
    def keeps(self) -> bool:
        """Whether scores of either kind are to be returned."""
        return self.keeps_scores or self.keeps_logits

    @property
    def fills_cache(self) -> bool:
        """Whether somebody will see the cache."""
        given = self.asked.own_cache or getattr(self.cache, "_is_user_defined", False)
        return self.cache is not None and (self.record or given)

    @property
    def pad(self) -> int:
        """What finished rows go on with; 0 where they do not finish one by one."""
        pad = getattr(self.config, "_pad_token_tensor", None)
        return 0 if pad is None else int(pad)

    @property
    def pads_rows(self) -> bool:
        """Whether a row that is over goes on with padding: else it goes on with tokens until all are over."""
        return any(hasattr(criterion, "eos_token_id") for criterion in self.criteria)
