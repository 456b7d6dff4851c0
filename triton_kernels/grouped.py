"""Grouped scoring for token trees: every node has candidates of its own.

    logit[n, j] = sum_i h[n, i] g[i] E[id[n, j], i] / sqrt(mean_i h[n, i]^2 + eps), -inf where id[n, j] < 0

In a tree of drafts each node was expanded into other children (SpecEE, arXiv 2504.08850, section 6: grouped
products of the merged mapping). One program a node, all at once: sixty nodes take the multiprocessors that
one row leaves idle. Nodes with fewer candidates than others are filled up with -1.
"""

from __future__ import annotations

import torch

from . import checks
from .launch import launch
from .scoring import blocks, check_head, score_kernel

MAX_NODES = 1024


def score_nodes(
    hidden: torch.Tensor, norm: torch.Tensor, head: torch.Tensor, ids: torch.Tensor, *, eps: float
) -> torch.Tensor:
    """Logits of each node's candidates.

    Args:
        hidden: (N, hidden) float, N 1 to 1024 nodes.
        norm: (hidden,) float, weight of the final RMSNorm.
        head: (vocab, hidden) float, the LM head.
        ids: (N, k) int, k 1 to 16: token ids, -1 for none.
        eps: of the norm.

    Returns:
        (N, k) float32, -inf where there is no candidate.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    check_head(hidden, norm, head)
    checks.tensor("ids", ids, (hidden.shape[0], None), checks.INTEGERS)
    checks.size("nodes", hidden.shape[0], 1, MAX_NODES)
    checks.size("candidates of a node", ids.shape[1], 1, checks.MAX_CANDIDATES)
    checks.device(hidden=hidden, norm=norm, head=head, ids=ids)
    nodes, count = ids.shape
    out = torch.empty((nodes, count), dtype=torch.float32, device=hidden.device)
    launch(
        score_kernel, (nodes,), hidden, norm, head, ids, out, eps,
        COUNT=count, ROW_IDS=True, SIZE=hidden.shape[1], **blocks(count), warps=8,
    )  # fmt: skip
    return out
