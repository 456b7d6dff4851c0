"""What the head makes of states on a device: logits, drawn tokens and their shares of the softmax."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_draft import CudaDraftHead
from specee.backends.cuda_repeats import Graphs, Repeats
from specee.backends.cuda_weights import CudaWeights
from specee.backends.cuda_workspace import Workspace, cut_inputs
from specee.backends.head_verbs import Draw, drawn, on_host
from specee.backends.protocol import Floats, Ints
from specee.cuda.acceptance import Accepted, Drafts, Draws, Pieces, accept, target_pieces
from specee.cuda.candidates import candidate_logits
from specee.cuda.chances import exit_chances
from specee.cuda.launcher import Launcher
from specee.cuda.products import multiply, norm_rows
from specee.cuda.scoring import Mlp
from specee.cuda.shares import token_shares
from specee.cuda.tiles import MAX_LINEAR_ROWS, vocab_splits
from specee.errors import NumericalError
from specee.types import ModelConfig, Sampling

WORD = (1 << 64) - 1  # what noise takes of a seed


class CudaHead:
    """The final norm and the output matrix, 64 states at a time."""

    def __init__(
        self,
        config: ModelConfig,
        table: CudaWeights,
        workspace: Workspace,
        launcher: Launcher,
        device: torch.device,
        graphs: Graphs,
    ) -> None:
        self._config, self._launcher, self._device = config, launcher, device
        self._repeats = Repeats(launcher, graphs)
        self._states = self._empty(torch.float32, MAX_LINEAR_ROWS, config.hidden_size)
        self._norm, self._matrix = table.vector("final_norm"), table.matrix(*table.head_key)
        quantised = not isinstance(self._matrix, Tensor)
        self._normed = workspace.inputs(config.hidden_size, quantised=quantised)
        self._logits = torch.empty(MAX_LINEAR_ROWS, config.vocab_size, device=device)
        pieces = (MAX_LINEAR_ROWS, vocab_splits(config.vocab_size))
        self._pieces = Pieces(self._empty(torch.float64, *pieces), self._empty(torch.int32, *pieces))
        # Every row is a sequence of its own, without drafts: its target is the token to draw.
        none, firsts = self._empty(torch.int32, MAX_LINEAR_ROWS).fill_(-1), torch.arange(MAX_LINEAR_ROWS + 1)
        self._drafts = Drafts(none, none, firsts.to(torch.int32).to(device))
        self._accepted = Accepted(*(self._empty(torch.int32, MAX_LINEAR_ROWS) for _ in range(4)))
        self._shares = self._empty(torch.float32, MAX_LINEAR_ROWS)
        self._greedy, self._drawn = (
            Draws(
                self._empty(torch.float64, MAX_LINEAR_ROWS).zero_(),
                *(self._empty(torch.int64, MAX_LINEAR_ROWS).zero_() for _ in range(2)),
            )
            for _ in range(2)
        )

    def _empty(self, dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self._device)

    def logits(self, states: Tensor, head: CudaDraftHead | None) -> Floats:
        """Of each state (rows, hidden): (rows, vocab) fp32 on the host. Raises NumericalError."""
        parts = [on_host(self._chunk(part, head)) for part in _chunks(states)]
        return np.concatenate(parts) if parts else np.zeros((0, self._config.vocab_size), np.float32)

    def choose(
        self, states: Tensor, draws: Seq[Draw] | None, head: CudaDraftHead | None, *, shares: bool
    ) -> tuple[Ints, Floats]:
        """Tokens drawn after each state, the best ones without ``draws``, and their shares if asked for.

        Filters and penalties are the host's; what needs none is drawn here. Raises NumericalError.
        """
        tokens, found, begin = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], 0
        for part in _chunks(states):
            end = begin + len(part)
            own = None if draws is None else draws[begin:end]
            drawn_from = self._as_drawn(len(part), own)  # before any launch, for which a transfer waits
            logits = self._chunk(part, head)
            chosen = self._chosen(logits, own, drawn_from)
            if shares:
                self._share(logits, chosen)
            tokens.append(_checked(chosen.cpu().numpy().astype(np.int64)))
            if shares:
                found.append(on_host(self._shares[: len(part)]))
            begin = end
        return np.concatenate(tokens), np.concatenate(found)

    def scores(self, states: Tensor, ids: Ints) -> Floats:
        """Logits of ``ids`` (rows, k) by states (rows, hidden), 16 of them at most: (rows, k)."""
        out, begin = np.zeros(ids.shape, np.float32), 0
        for part in _chunks(states):
            end = begin + len(part)
            out[begin:end] = on_host(self._candidates(part, ids[begin:end]))
            begin = end
        return out

    def chances(
        self, states: Tensor, ids: Ints, before: Floats, network: Mlp
    ) -> tuple[Floats, Floats, Floats]:
        """Of states (rows, hidden), by logits of ``ids`` (rows, k), 16 at most: what a predictor says.

        Logits and probabilities (rows, k), and chances (rows,); ``before`` (rows, k) are the probabilities at
        the layer checked before, zeros at the first.
        """
        logits, now = np.zeros(ids.shape, np.float32), before.copy()
        chances, begin = np.zeros(len(ids), np.float32), 0
        for part in _chunks(states):
            end = begin + len(part)
            few = self._candidates(part, ids[begin:end])
            there = torch.from_numpy(before[begin:end]).to(self._device, copy=True)
            says = self._empty(torch.float32, len(part))
            exit_chances(self._launcher, network, few, there, says)
            logits[begin:end], now[begin:end], chances[begin:end] = map(on_host, (few, there, says))
            begin = end
        return logits, now, chances

    def _candidates(self, states: Tensor, ids: Ints) -> Tensor:
        """Logits of ``ids`` (rows, k) by at most 64 states, on the device."""
        tokens = torch.from_numpy(ids.astype(np.int32)).to(self._device)
        logits = self._empty(torch.float32, *tokens.shape)
        normed = self._normed_rows(self._launcher, states)
        candidate_logits(self._launcher, normed, self._matrix, tokens, logits)
        return logits

    def _normed_rows(self, launcher: Launcher, states: Tensor) -> Any:
        normed = cut_inputs(self._normed, 0, len(states))
        norm_rows(launcher, states, self._norm, normed, eps=self._config.norm_eps)
        return normed

    def _chunk(self, states: Tensor, head: CudaDraftHead | None) -> Tensor:
        """Logits of at most 64 states, on the device; they stand until the next ones."""
        count = len(states)
        own, out = self._states[:count], self._logits[:count]
        own.copy_(states)
        if head is not None:
            head.logits(own, self._norm, out)
        else:
            self._repeats.run(("logits", count), lambda launcher: self._multiply(launcher, own, out))
        return out

    def _multiply(self, launcher: Launcher, states: Tensor, out: Tensor) -> None:
        multiply(launcher, self._normed_rows(launcher, states), self._matrix, out)

    def _chosen(self, logits: Tensor, draws: Seq[Draw] | None, drawn_from: Draws) -> Tensor:
        """The token of each row, (rows,) int32 on the device; from the host where there are filters."""
        count = len(logits)
        own = [] if draws is None else [at for at, draw in enumerate(draws) if not is_plain(draw.sampling)]
        chosen: Tensor = self._accepted.targets[:count]
        if len(own) < count:
            key = ("draw", count, drawn_from is self._greedy)
            self._repeats.run(key, lambda launcher: self._draw(launcher, logits, drawn_from))
        if own and draws is not None:
            rows = zip(own, on_host(logits[own]), strict=True)
            tokens = [drawn(row, draws[at]) for at, row in rows]
            chosen[own] = torch.tensor(tokens, dtype=torch.int32, device=self._device)
        return chosen

    def _draw(self, launcher: Launcher, logits: Tensor, draws: Draws) -> None:
        """Every row's token by temperature and noise alone, into ``accepted.targets``."""
        count = len(logits)
        pieces = Pieces(self._pieces.scores[:count], self._pieces.tokens[:count])
        own = Draws(draws.temperatures[:count], draws.seeds[:count], draws.positions[:count])
        target_pieces(launcher, logits, own, pieces)
        none, out = self._drafts.tokens[:count], self._accepted
        accept(
            launcher,
            pieces,
            Drafts(none, none, self._drafts.firsts[: count + 1]),
            Accepted(out.targets[:count], out.path[:count], out.counts[:count], out.next_tokens[:count]),
        )

    def _share(self, logits: Tensor, chosen: Tensor) -> None:
        """How likely the chosen tokens are, into ``shares``."""
        out = self._shares[: len(logits)]
        key = ("shares", len(logits))
        self._repeats.run(key, lambda launcher: token_shares(launcher, logits, chosen, out))

    def _as_drawn(self, count: int, draws: Seq[Draw] | None) -> Draws:
        """What the first ``count`` rows are drawn with, in arrays that stand still."""
        if draws is None or all(draw.sampling.temperature == 0 for draw in draws):
            return self._greedy
        seeds = np.array([draw.sampling.seed & WORD for draw in draws], np.uint64).view(np.int64)
        temperatures = torch.tensor([draw.sampling.temperature for draw in draws], dtype=torch.float64)
        self._drawn.temperatures[:count].copy_(temperatures)
        self._drawn.seeds[:count].copy_(torch.from_numpy(seeds))
        self._drawn.positions[:count].copy_(torch.tensor([draw.position for draw in draws]))
        return self._drawn


def _checked(tokens: Ints) -> Ints:
    """The tokens. Raises NumericalError where a row has none to draw."""
    if (tokens < 0).any():
        raise NumericalError(
            f"row {int(np.argmin(tokens))} of {len(tokens)} has a logit that is not a number, or none above "
            "minus infinity: check the weights, or use weights of a wider format"
        )
    return tokens


def is_plain(sampling: Sampling) -> bool:
    """Whether the token depends on logits, temperature and noise alone."""
    return sampling.repetition_penalty == 1 and (
        sampling.temperature == 0 or (sampling.top_k == 0 and sampling.top_p >= 1 and sampling.min_p == 0)
    )


def _chunks(states: Tensor) -> Iterator[Tensor]:
    for begin in range(0, len(states), MAX_LINEAR_ROWS):
        yield states[begin : begin + MAX_LINEAR_ROWS]
