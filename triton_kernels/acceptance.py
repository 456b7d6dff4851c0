"""Acceptance: following the full model's tokens down a tree of drafts.

    node = root;  repeat: emit target[node];  node = the child of node with that token, if there is one, else
    stop

Greedy acceptance and noise-coupled acceptance are the same walk over different targets (drawing.py);
specee/acceptance.py is the same in Python. One program a tree: nodes are lanes, a step is one comparison of
all of them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from . import checks
from .launch import launch

MAX_NODES = 256


class Walks(NamedTuple):
    """Of each tree: emitted tokens and accepted nodes (T, N) int32, -1 after the last; accepted (T,) int32.

    One token more is emitted than nodes are accepted.
    """

    tokens: torch.Tensor
    path: torch.Tensor
    accepted: torch.Tensor


@triton.jit
def walk_kernel(
    drafts, parents, targets, counts, tokens, path, accepted, NODES: tl.constexpr, PADDED: tl.constexpr
):
    """One tree; nodes are lanes."""
    tree = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, PADDED)
    count = tl.load(counts + tree)
    below = (lane > 0) & (lane < count)
    draft = tl.load(drafts + tree * NODES + lane, mask=below, other=-1)
    parent = tl.load(parents + tree * NODES + lane, mask=below, other=-1)
    node = tree * 0
    taken = tl.sum(lane * 0, axis=0)
    going = count > 0
    for step in range(NODES):
        target = tl.load(targets + tree * NODES + node, mask=going, other=-1)
        child = tl.min(tl.where(below & (parent == node) & (draft == target), lane, PADDED), axis=0)
        found = going & (child < PADDED)
        tl.store(tokens + tree * NODES + step, target)
        tl.store(path + tree * NODES + step, tl.where(found, child, -1))
        taken += found.to(tl.int32)
        node = tl.where(found, child.to(tl.int64), node)
        going = found
    tl.store(accepted + tree, taken)


def accept(drafts: torch.Tensor, parents: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor) -> Walks:
    """Walk down every tree.

    Args:
        drafts: (T, N) int, N up to 256: token of each node; node 0 is the newest committed row.
        parents: (T, N) int: each node's parent, before it; that of node 0 is not read.
        targets: (T, N) int: the full model's token after each node.
        counts: (T,) int: nodes of each tree, node 0 included; what comes after them is not read.

    Raises:
        KernelArgumentError: a shape, dtype or device does not fit.
    """
    checks.tensor("drafts", drafts, (None, None), checks.INTEGERS)
    trees, nodes = drafts.shape
    checks.size("nodes of a tree", nodes, 1, MAX_NODES)
    checks.tensor("parents", parents, (trees, nodes), checks.INTEGERS)
    checks.tensor("targets", targets, (trees, nodes), checks.INTEGERS)
    checks.tensor("counts", counts, (trees,), checks.INTEGERS)
    checks.device(drafts=drafts, parents=parents, targets=targets, counts=counts)
    tokens, path = torch.empty((2, trees, nodes), dtype=torch.int32, device=drafts.device)
    accepted = torch.empty(trees, dtype=torch.int32, device=drafts.device)
    launch(
        walk_kernel, (trees,), drafts, parents, targets, counts, tokens, path, accepted,
        NODES=nodes, PADDED=triton.next_power_of_2(nodes), warps=1,
    )  # fmt: skip
    return Walks(tokens, path, accepted)
