"""What the head makes of states on a device: logits, drawn tokens and their shares of the softmax."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np
import torch
from torch import Tensor

from specee.backends.cuda_draft import CudaDraftHead
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
    ) -> None:
        self._config, self._launcher, self._device = config, launcher, device
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
        zeros = Draws(
            self._empty(torch.float64, MAX_LINEAR_ROWS).zero_(),
            *(self._empty(torch.int64, MAX_LINEAR_ROWS).zero_() for _ in range(2)),
        )
        self._greedy = {
            count: Draws(zeros.temperatures[:count], zeros.seeds[:count], zeros.positions[:count])
            for count in range(1, MAX_LINEAR_ROWS + 1)
        }

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
            logits = self._chunk(part, head)
            chosen = self._chosen(logits, None if draws is None else draws[begin:end])
            if shares:
                token_shares(self._launcher, logits, chosen, self._shares[: len(part)])
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
        candidate_logits(self._launcher, self._normed_rows(states), self._matrix, tokens, logits)
        return logits

    def _normed_rows(self, states: Tensor) -> Any:
        normed = cut_inputs(self._normed, 0, len(states))
        norm_rows(self._launcher, states, self._norm, normed, eps=self._config.norm_eps)
        return normed

    def _chunk(self, states: Tensor, head: CudaDraftHead | None) -> Tensor:
        """Logits of at most 64 states, on the device; they stand until the next ones."""
        out = self._logits[: len(states)]
        if head is not None:
            head.logits(self._launcher, states, self._norm, out)
            return out
        multiply(self._launcher, self._normed_rows(states), self._matrix, out)
        return out

    def _chosen(self, logits: Tensor, draws: Seq[Draw] | None) -> Tensor:
        """The token of each row, (rows,) int32 on the device; from the host where there are filters."""
        count = len(logits)
        own = [] if draws is None else [at for at, draw in enumerate(draws) if not is_plain(draw.sampling)]
        chosen: Tensor = self._accepted.targets[:count]
        if len(own) < count:
            self._draw(logits, draws)
        if own and draws is not None:
            rows = zip(own, on_host(logits[own]), strict=True)
            tokens = [drawn(row, draws[at]) for at, row in rows]
            chosen[own] = torch.tensor(tokens, dtype=torch.int32, device=self._device)
        return chosen

    def _draw(self, logits: Tensor, draws: Seq[Draw] | None) -> None:
        """Every row's token by temperature and noise alone, into ``accepted.targets``."""
        count = len(logits)
        pieces = Pieces(self._pieces.scores[:count], self._pieces.tokens[:count])
        target_pieces(self._launcher, logits, self._as_drawn(count, draws), pieces)
        none, out = self._drafts.tokens[:count], self._accepted
        accept(
            self._launcher,
            pieces,
            Drafts(none, none, self._drafts.firsts[: count + 1]),
            Accepted(out.targets[:count], out.path[:count], out.counts[:count], out.next_tokens[:count]),
        )

    def _as_drawn(self, count: int, draws: Seq[Draw] | None) -> Draws:
        if draws is None or all(draw.sampling.temperature == 0 for draw in draws):
            return self._greedy[count]
        return Draws(
            torch.tensor([d.sampling.temperature for d in draws], dtype=torch.float64, device=self._device),
            torch.from_numpy(np.array([d.sampling.seed & WORD for d in draws], np.uint64).view(np.int64)).to(
                self._device
            ),
            torch.tensor([d.position for d in draws], dtype=torch.int64, device=self._device),
        )


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
