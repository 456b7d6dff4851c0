"""Training a drafter block against the full model's distribution, a batch at a time, resumable.

The loss of a step is the cross-entropy with the model's probabilities over the draft vocabulary; unrolled
steps (:class:`.Drafter`) count less and less. AdamW (Loshchilov and Hutter, 2019) with a cosine schedule.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from specee.fitting import kept_training
from specee.fitting.batches import Batch
from specee.fitting.distillation import distilled
from specee.fitting.drafter import Drafter
from specee.fitting.frozen import Frozen
from specee.fitting.precision import PRODUCTS, autocast
from specee.fitting.timetable import Pace

_LATER = 0.8  # what a step of the unrolled drafter counts beside the one before
_WARM_UP, _LEAST = 50, 0.05  # batches; and the share of the learning rate that is left at the end
_CLIP = 1.0


@dataclass(frozen=True)
class Settings:
    """Of a training run.

    The drafter is unrolled by ``steps``, from the share ``later`` of all batches on: what it gives must be
    worth something before it is read again. ``half`` computes products in bf16, where that is fast.
    """

    steps: int = 2
    later: float = 0.6
    learning_rate: float = 1.5e-3
    weight_decay: float = 0.05
    half: bool = True


class Training:
    """``batches`` of them in all; ``done`` are behind us, the last with ``losses`` by unrolled step.

    ``history``: the loss of the first step of every batch that is done. ``of``: what tells this run from
    others, which its files say. ``pace``: how long there is time for it; the schedule ends when that does.
    """

    def __init__(
        self,
        drafter: Drafter,
        frozen: Frozen,
        vocabulary: Tensor,
        batches: int,
        settings: Settings,
        of: str = "",
        pace: Pace | None = None,
    ) -> None:
        self.drafter, self.batches, self.done = drafter, batches, 0
        self.losses: list[float] = []
        self.history: list[float] = []
        self._of, self._pace = f"{of}; {settings}", pace
        self._frozen, self._settings = frozen, settings
        head = frozen.head[vocabulary]
        self._head = head.to(PRODUCTS) if settings.half else head
        self._optimizer = torch.optim.AdamW(
            drafter.parameters(), settings.learning_rate, (0.9, 0.95), weight_decay=settings.weight_decay
        )

    def run(self, batch: Callable[[int], Batch], save_every: int, path: Path) -> Iterator[int]:
        """Train on what is left, saving to ``path`` on the way; gives how many batches are done.

        One batch at the least, however short the time.
        """
        while self.done < self.batches and not (self.done and self._over()):
            self.losses = self.step(batch(self.done))
            self.history.append(self.losses[0])
            self.done += 1
            if self.done % save_every == 0 or self.done == self.batches:
                self.save(path)
            yield self.done
        if self.done < self.batches:  # for want of time
            self.save(path)

    def _over(self) -> bool:
        return self._pace is not None and self._pace.over()

    def _progress(self) -> float:
        if self._pace is None:
            return self.done / self.batches
        return self._pace.progress(self.done, self.batches)

    def step(self, batch: Batch) -> list[float]:
        """One batch; returns the loss of each unrolled step."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.learning_rate * schedule(self.done, self._progress())
        with self._precision():
            losses = self._losses(batch)
            weights = [_LATER**step for step in range(len(losses))]
            loss = sum(weight * one for weight, one in zip(weights, losses, strict=True)) / sum(weights)
        self._optimizer.zero_grad()
        assert isinstance(loss, Tensor)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.drafter.parameters(), _CLIP)
        self._optimizer.step()
        return [one.item() for one in losses]

    def _losses(self, batch: Batch) -> list[Tensor]:
        unrolled = self._progress() >= self._settings.later
        outputs = self._outputs(batch, self._settings.steps if unrolled else 1)
        normed = [self.drafter.headed(output[batch.counts], self._frozen.normed) for output in outputs]
        counts = [_from(batch.counts, step)[batch.counts] for step in range(len(outputs))]
        return distilled(self._head, self._frozen.normed(batch.after[batch.counts]), normed, counts)

    def _outputs(self, batch: Batch, steps: int) -> list[Tensor]:
        outputs: list[Tensor] = self.drafter(
            self._frozen.embedding[batch.tokens], self.drafter.fused(batch.before.float()), steps
        )
        return outputs

    def _precision(self) -> torch.autocast:
        return autocast(enabled=self._settings.half)

    def save(self, path: Path) -> None:
        """All that a resumed run needs. Raises OSError."""
        said = {"done": self.done, "losses": self.losses, "history": self.history}
        kept_training.save(path, self._of, self.drafter, self._optimizer, said)

    def resume(self, path: Path) -> None:
        """Go on where :meth:`save` was. Raises CheckpointError for a file of another run."""
        said = kept_training.resume(path, self._of, self.drafter, self._optimizer)
        self.done, self.losses, self.history = said["done"], said["losses"], said["history"]


def _from(counts: Tensor, step: int) -> Tensor:
    """Where step ``step`` of the unrolled drafter has true states behind it."""
    later = counts.clone()
    later[:, :step] = False
    return later


def schedule(done: int, progress: float) -> float:
    """Of the learning rate after ``done`` batches, ``progress`` (0 to 1) of all of them."""
    warm = min(1.0, (done + 1) / _WARM_UP)
    return warm * (_LEAST + (1 - _LEAST) * 0.5 * (1 + math.cos(math.pi * progress)))
