"""``--trace``: pages of hand-made generations, read back with an HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from specee.cli.trace import explain, origins, trace_page
from specee.cli.trace_colours import swatches
from specee.engine.statistics import Statistics
from specee.models.detokenizer import IncrementalDecoder
from specee.policies import (
    DrafterTree,
    ExitLayer,
    NgramLookup,
    Outcome,
    PredictedTree,
    Pruned,
    Round,
    Times,
)

SHALLOW, DEEP, LOOKUP = ExitLayer(8), ExitLayer(24), NgramLookup()
PIECES = (
    *(b"The", b" quick", b"<script>", b"&\"'", b"\n\n", b"\r\n", b" {{ 1 }}", b"", b"<|end|>"),
    *(bytes([byte]) for byte in "🙂".encode()),
)


def decode(tokens: list[int]) -> str:
    """Bytes to text, without a space at the start, as some tokenizers do."""
    return b"".join(PIECES[token] for token in tokens).decode("utf-8", "replace").removeprefix(" ")


TOKENIZER = SimpleNamespace(stream=lambda: IncrementalDecoder(decode))
PROMPT = (0, 2, 9)  # ends inside a character
STEPS = (
    Round(0, (10,)),
    Round(0, (11, 12, 1), DEEP, 3, 2, (0.9, 0.8, 0.1)),
    Round(0, (2, 3), SHALLOW, 1, 1, (0.7,)),
    Round(0, (4, 5, 6), LOOKUP, 5, 2, (0.5,) * 5),
    Round(0, (7, 1)),
    Round(0, (8,), DEEP, 2, 1, (0.6, 0.5)),  # ends with a draft
)


def generation(*steps: Round, prompt: tuple[int, ...] = PROMPT, seconds: float = 1.0) -> SimpleNamespace:
    statistics = Statistics()
    for index, entry in enumerate(steps):
        other = Round(1, (1, 1), DEEP, 1, 1, (0.5,))  # of another sequence, to be left out
        outcome = Outcome((entry, other), Times(draft=0.25, verify=0.5) if index else Times())
        statistics.add(outcome, seconds)
    generated = [token for entry in steps for token in entry.tokens]
    sequence = SimpleNamespace(request=SimpleNamespace(prompt=prompt), generated=generated)
    return SimpleNamespace(sequences={0: sequence}, statistics=statistics)


class Page(HTMLParser):
    """What a reader has: text of the prompt, of each token, tags, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.prompt, self.inside, self.everything = "", "", ""
        self.tokens: list[dict[str, str]] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "meta":
            return
        kind = dict(attributes).get("class") or ""
        self._open.append(kind)
        if kind.split(" ")[0] == "t":
            self.tokens.append({"text": "", "kind": kind, "title": dict(attributes)["title"] or ""})

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.everything += data + " "
        if "text" in self._open:
            self.inside += data
        if self._open and self._open[-1].split(" ")[0] == "t":
            self.tokens[-1]["text"] += data
        elif self._open and self._open[-1] == "prompt" and "text" in self._open:
            self.prompt += data


@pytest.fixture(scope="module")
def html() -> str:
    return trace_page(generation(*STEPS), TOKENIZER, "threshold:x=<b>")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def whole_text() -> str:
    return decode([*PROMPT, *(token for entry in STEPS for token in entry.tokens)])


def test_the_spans_are_the_text(page: Page) -> None:
    assert page.prompt + "".join(token["text"] for token in page.tokens) == whole_text()
    assert page.inside == whole_text()  # nothing between them
    assert "🙂 quick<script>" in whole_text()


def test_every_token_is_there(page: Page) -> None:
    ids = [int(token["title"].split("\n")[0].removeprefix("token ")) for token in page.tokens]
    assert ids == [token for entry in STEPS for token in entry.tokens]


def test_a_character_is_shown_where_it_is_complete(page: Page) -> None:
    assert page.prompt == "The<script>"
    assert [token["text"] for token in page.tokens[:4]] == ["", "", "🙂", " quick"]


def test_the_models_markup_stays_text(html: str, page: Page) -> None:
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert "<script" not in html
    assert "{{ 1 }}" in page.inside
    assert "threshold:x=<b>" in page.everything


def test_the_page_loads_nothing(html: str, page: Page) -> None:
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http:" not in html
    assert "https:" not in html
    assert "url(" not in html


def test_drafts_have_the_colour_of_their_source(html: str, page: Page) -> None:
    kinds = [token["kind"].split()[1] for token in page.tokens]
    shallow, deep, lookup = (swatch.name for swatch in swatches([DEEP, LOOKUP, SHALLOW]))
    assert kinds == [
        "full", deep, deep, "full", shallow, "full", lookup, lookup, "full", "full", "full", deep
    ]  # fmt: skip
    for name in (shallow, deep, lookup):
        assert html.count(f".{name} {{ background: hsl(") == 1
    assert ".full {" not in html


def test_line_breaks_are_marked(page: Page) -> None:
    marked = [token["text"] for token in page.tokens if "newline" in token["kind"]]
    assert marked == ["\n\n", "\r\n"]


def test_the_legend_names_what_is_there(page: Page) -> None:
    for label in ("exit layer 8", "exit layer 24", "prompt lookup", "full model"):
        assert label in page.everything


def test_the_summary(page: Page) -> None:
    words = page.everything.split()
    numbers = " ".join(words[words.index("Summary") :])
    alone = Statistics()
    for entry in STEPS:
        alone.add(Outcome((entry,)), 1.0)
    both = generation(*STEPS).statistics.acceptance
    assert both.drafted == alone.acceptance.drafted + len(STEPS)
    assert f"new tokens {sum(len(entry.tokens) for entry in STEPS)}" in numbers
    assert f"drafted {both.drafted} accepted {both.accepted} acceptance {both.rate:.1%}" in numbers
    assert "draft 25.0% draft head 0.0% verify 50.0% head 0.0% shadow 0.0% Python 25.0%" in numbers
    assert "prompt lookup 5 2 40.0%" in numbers


@pytest.mark.parametrize(
    ("index", "wanted"),
    [
        (0, "round 0 (the prompt's)\nfull model, nothing drafted"),
        (1, "round 1\ndraft 1 of 3 by exit layer 24, confidence 0.900, accepted"),
        (3, "round 1\nfull model; draft 3 of 3 by exit layer 24, confidence 0.100, rejected"),
        (5, "round 2\nfull model; all drafts (1) by exit layer 8 accepted"),
        (8, "round 3\nfull model; draft 3 of 5 by prompt lookup, confidence 0.500, rejected"),
        (11, "round 5\ndraft 1 of 2 by exit layer 24, confidence 0.600, accepted"),
    ],
)
def test_tokens_are_explained(page: Page, index: int, wanted: str) -> None:
    assert page.tokens[index]["title"].split("\n", 1)[1] == wanted


def test_a_source_without_confidences_is_explained_without() -> None:
    statistics = generation(STEPS[0], Round(0, (1, 2), LOOKUP, 1, 1)).statistics
    assert explain(list(origins(statistics))[1]) == "round 1\ndraft 1 of 1 by prompt lookup, accepted"


def test_drafts_of_a_tree_are_explained_by_their_path() -> None:
    """Confidences are in the order of the tree's nodes, of which the second and the fourth were accepted."""
    entry = Round(0, (1, 2, 3), DrafterTree(), 5, 2, (0.6, 0.3, 0.2, 0.15, 0.1), (1, 3), 2)
    statistics = generation(Round(0, (10,)), entry).statistics
    first, second, full = [explain(origin) for origin in list(origins(statistics))[1:]]
    tree = "5 drafts, 2 deep, by drafter tree"
    assert first == f"round 1\ndraft 1 in a row of {tree}, confidence of its path 0.300, accepted"
    assert second == f"round 1\ndraft 2 in a row of {tree}, confidence of its path 0.150, accepted"
    assert full == f"round 1\nfull model; {tree}, 2 accepted"


def test_drafts_that_were_ruled_out_are_mentioned() -> None:
    source, gone = PredictedTree(threshold=0.7), (Pruned(12, 0.3), Pruned(20, 0.1))
    entries = [
        Round(0, (1,), source, pruned=gone),
        Round(0, (2, 3), source, 1, 1, (0.5,), (0,), 1, pruned=gone),
    ]
    statistics = generation(Round(0, (10,)), *entries).statistics
    nothing, first, full = [explain(origin) for origin in list(origins(statistics))[1:]]
    assert nothing == "round 1\nfull model, all drafts (2) ruled out"
    tree = "1 drafts, 1 deep, by pruned tree over 0.7"
    assert first == f"round 2\ndraft 1 in a row of {tree}, confidence of its path 0.500, accepted"
    assert full == f"round 2\nfull model; {tree}, 1 accepted"


def test_a_text_that_ends_inside_a_character_keeps_its_last_token() -> None:
    page = Page(trace_page(generation(Round(0, (1, 9))), TOKENIZER))
    assert [token["text"] for token in page.tokens] == ["\ufffd quick", "\ufffd"]


def test_a_prompt_alone_is_a_page() -> None:
    page = Page(trace_page(generation(), TOKENIZER))
    assert page.tokens == []
    assert page.prompt == decode(list(PROMPT))


def test_plain_decoding_is_a_page_without_tables_of_drafts() -> None:
    page = Page(trace_page(plain(), TOKENIZER))
    assert [token["kind"] for token in page.tokens] == ["t full"] * 2
    assert "By source" not in page.everything
    assert "acceptance" not in page.everything
    assert "Time" not in page.everything


def plain() -> SimpleNamespace:
    made = generation(prompt=(0,))
    made.sequences[0].generated = [1, 2]
    for token in made.sequences[0].generated:
        made.statistics.add(Outcome((Round(0, (token,)),)), 0.0)
    return made


def test_a_token_of_an_interrupted_step_is_there_too() -> None:
    made = plain()
    made.sequences[0].generated.append(3)
    tokens = Page(trace_page(made, TOKENIZER)).tokens
    assert (tokens[-1]["text"], tokens[-1]["title"]) == ("&\"'", "token 3\ninterrupted")


def test_layers_are_coloured_from_shallow_to_deep() -> None:
    layers = [ExitLayer(layer) for layer in (20, 4, 12)]
    found = swatches([*layers, LOOKUP, None, layers[0]])
    assert [swatch.label for swatch in found] == [
        "exit layer 4", "exit layer 12", "exit layer 20", "prompt lookup"
    ]  # fmt: skip
    hues = [int(swatch.colour.removeprefix("hsl(").split(" ")[0]) for swatch in found]
    assert hues[0] < hues[1] < hues[2]
    assert len({swatch.name for swatch in found}) == len(set(hues)) == 4


def test_adapted_drafts_differ_from_plain_ones() -> None:
    both = swatches([ExitLayer(4), ExitLayer(4, adapted=True)])
    assert both[0].colour == both[1].colour
    assert both[0].line != both[1].line
