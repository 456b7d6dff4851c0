"""``--trace``: the text as a page, each token in the colour of what drafted it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace
from itertools import chain, repeat

from specee.cli.labels import SHARES, source_label
from specee.cli.trace_colours import Swatch, swatches
from specee.cli.trace_template import render
from specee.engine import Generation
from specee.engine.statistics import Statistics
from specee.models.tokenizer import Tokenizer
from specee.policies import DrafterTree, DraftSource, Round

FULL = "full"  # tokens that the full model drew; drafts have the name of their source's swatch


@dataclass(frozen=True)
class Origin:
    """Where a token came from: place ``place`` of the tokens that ``entry`` gave in step ``step``."""

    step: int
    entry: Round
    place: int

    @property
    def drafted(self) -> bool:
        """Whether it is an accepted draft; else the full model drew it."""
        return self.place < self.entry.accepted


@dataclass(frozen=True)
class Piece:
    """A token on the page: its text, empty if a later token completes its character; colour; explanation."""

    text: str
    kind: str
    title: str


def trace_page(generation: Generation, tokenizer: Tokenizer, policy: str = "") -> str:
    """One HTML page, complete in itself, on sequence 0. ``policy`` is named in the heading."""
    sequence, statistics = generation.sequences[0], generation.statistics
    colours = swatches(entry.source for entry in statistics.rounds(0) if entry.accepted)
    prompt, pieces = tokens_as_text(
        sequence.request.prompt, sequence.generated, origins(statistics), tokenizer, colours
    )
    return render(
        policy=policy,
        prompt=prompt,
        pieces=pieces,
        colours=colours,
        full=FULL,
        statistics=statistics,
        sources=[(source_label(source), share) for source, share in statistics.by_source.items()],
        shares=[(SHARES[name], share) for name, share in statistics.shares.items()],
        new_tokens=len(sequence.generated),
    )


def origins(statistics: Statistics, sequence: int = 0) -> Iterator[Origin]:
    """Of every token of a sequence, in order."""
    for step, rounds in enumerate(statistics.steps):
        for entry in rounds:
            if entry.sequence == sequence:
                yield from (Origin(step, entry, place) for place in range(len(entry.tokens)))


def tokens_as_text(
    prompt: Seq[int],
    generated: Seq[int],
    came_from: Iterable[Origin],
    tokenizer: Tokenizer,
    colours: Seq[Swatch],
) -> tuple[str, list[Piece]]:
    """Text of the prompt, and one piece a generated token; together they are the text of all tokens.

    An interrupted step may have left a token without an origin.
    """
    decoder = tokenizer.stream()
    before = "".join(map(decoder.push, prompt))
    kinds: dict[DraftSource | None, str] = {swatch.source: swatch.name for swatch in colours}
    pieces = []
    for token, origin in zip(generated, chain(came_from, repeat(None)), strict=False):
        kind = kinds[origin.entry.source] if origin and origin.drafted else FULL
        title = f"token {token}\n{explain(origin) if origin else 'interrupted'}"
        pieces.append(Piece(decoder.push(token), kind, title))
    rest = decoder.finish()
    if not pieces:
        return before + rest, []
    pieces[-1] = replace(pieces[-1], text=pieces[-1].text + rest)
    return before, pieces


def explain(origin: Origin) -> str:
    """Round, source, place in the draft, confidence, and whether it was accepted."""
    entry, place = origin.entry, origin.place
    begin = f"round {origin.step}" + (" (the prompt's)" if origin.step == 0 else "")
    if not entry.drafted:
        ruled = f"all drafts ({len(entry.pruned)}) ruled out" if entry.pruned else "nothing drafted"
        return f"{begin}\nfull model, {ruled}"
    if isinstance(entry.source, DrafterTree):
        return f"{begin}\n{_in_tree(origin, entry.source)}"
    sure = f", confidence {entry.confidences[place]:.3f}" if place < len(entry.confidences) else ""
    draft = f"draft {place + 1} of {entry.drafted} by {source_label(entry.source)}{sure}"
    if origin.drafted:
        return f"{begin}\n{draft}, accepted"
    if place < entry.drafted:
        return f"{begin}\nfull model; {draft}, rejected"
    return f"{begin}\nfull model; all drafts ({entry.drafted}) by {source_label(entry.source)} accepted"


def _in_tree(origin: Origin, source: DrafterTree) -> str:
    """The same where drafts branch: a confidence is that of the path up to and with the draft."""
    entry, place = origin.entry, origin.place
    tree = f"{entry.drafted} drafts, {entry.depth} deep, by {source_label(source)}"
    if not origin.drafted:
        return f"full model; {tree}, {entry.accepted} accepted"
    sure = entry.confidences[entry.path[place]]
    return f"draft {place + 1} in a row of {tree}, confidence of its path {sure:.3f}, accepted"
