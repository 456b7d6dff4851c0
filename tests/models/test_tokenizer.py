"""The tokenizer's calls mean what transformers' mean, and streaming gives the text of decoding at once."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import transformers

from specee.errors import CheckpointError, ConfigurationError
from specee.models.chat_template import render_chat
from specee.models.gguf_header import read_header
from specee.models.gguf_tokenizer import tokenizer_from_gguf
from specee.models.tokenizer import SpecialTokens, Tokenizer
from tests.models.corpus import LINES, SPECIAL_LINES, random_lines
from tests.tiny_models import save_tokenizer, sentencepiece_vocabulary, tiny_tokenizer, tokenizer_gguf

CORPUS = [*LINES, *SPECIAL_LINES, *random_lines(seed=3, count=50)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


@pytest.fixture
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_folder(folder)


def test_same_as_transformers(folder: Path, tokenizer: Tokenizer) -> None:
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
    for line in CORPUS:
        expected = theirs(line)
        assert tokenizer(line)["input_ids"] == expected["input_ids"]
        assert tokenizer(line).attention_mask == expected["attention_mask"]
        ids = expected["input_ids"]
        for skip in (False, True):
            assert tokenizer.decode(ids, skip_special_tokens=skip) == theirs.decode(
                ids, skip_special_tokens=skip
            )
    assert tokenizer.vocab_size == len(theirs)
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert getattr(tokenizer, name) == getattr(theirs, name)
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé"}]
    for prompt in (False, True):
        text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
        assert tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, tokenize=False) == text
        encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=prompt, return_tensors="np")
        assert encoded.input_ids.tolist() == [theirs(text)["input_ids"]]


def test_batches_are_padded_on_the_left(folder: Path, tokenizer: Tokenizer) -> None:
    import torch

    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(folder, padding_side="left")
    texts = ["one", "a longer text", "x"]
    expected = theirs(texts, padding=True, return_tensors="np")
    for kind, type_ in (("np", np.ndarray), ("pt", torch.Tensor)):
        found = tokenizer(texts, padding=True, return_tensors=kind)  # type: ignore[arg-type]
        assert isinstance(found.input_ids, type_)
        np.testing.assert_array_equal(np.asarray(found.input_ids), expected["input_ids"])
        np.testing.assert_array_equal(np.asarray(found["attention_mask"]), expected["attention_mask"])
        assert np.asarray(found.input_ids).dtype == np.int64
    assert tokenizer(texts).input_ids == theirs(texts)["input_ids"]
    assert dict(**tokenizer("one")).keys() == {"input_ids", "attention_mask"}


def test_decode_takes_ids_arrays_and_tensors(tokenizer: Tokenizer) -> None:
    import torch

    ids = tokenizer.encode("Hello world")
    for form in (ids, tuple(ids), np.array(ids, np.int32), torch.tensor(ids), torch.tensor([ids])):
        assert tokenizer.decode(form, clean_up_tokenization_spaces=True) == "Hello world"
    assert tokenizer.decode(ids[0]) == "H"
    assert tokenizer.decode([]) == ""


def test_text_streamer(tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    streamer = transformers.TextStreamer(tokenizer, skip_special_tokens=True)
    text = "Hello wörld, how are you? \u4f60\u597d\n"
    for token in [1, *tokenizer.encode(text), 2]:
        streamer.put(torch.tensor([token]))
    streamer.end()
    assert capsys.readouterr().out == text + "\n"


def test_padding_needs_a_token_and_tensors_equal_lengths(tokenizer: Tokenizer) -> None:
    with pytest.raises(ConfigurationError, match="pass padding=True"):
        tokenizer(["one", "another one"], return_tensors="np")
    with pytest.raises(ConfigurationError, match="return_tensors is 'tf'; it must be None, 'np' or 'pt'"):
        tokenizer("one", return_tensors="tf")  # type: ignore[arg-type]
    bare = Tokenizer(tiny_tokenizer(), SpecialTokens())
    with pytest.raises(ConfigurationError, match="has no padding token"):
        bare(["one", "another one"], padding=True)
    with pytest.raises(ConfigurationError, match="has no chat template"):
        bare.apply_chat_template([])
    assert (bare.bos_token_id, bare.eos_token_id, bare.pad_token_id) == (None, None, None)


def stream(tokenizer: Tokenizer, ids: list[int], *, skip: bool = False) -> list[str]:
    decoder = tokenizer.stream(skip_special_tokens=skip)
    return [*(decoder.push(token) for token in ids), decoder.finish()]


@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece"])
def test_streamed_text_is_the_text(kind: str, skip: bool, tokenizer: Tokenizer, tmp_path: Path) -> None:
    if kind == "sentencepiece":
        built = tokenizer_from_gguf(
            read_header(tokenizer_gguf(tmp_path / "m.gguf", sentencepiece_vocabulary()))
        )
        assert built is not None
        tokenizer = built
    for line in [*CORPUS, *random_lines(seed=4, count=100)]:
        ids = tokenizer.encode(line)
        pieces = stream(tokenizer, ids, skip=skip)
        assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip), repr(line)
        if "\ufffd" not in line:
            assert not any("\ufffd" in piece for piece in pieces), (
                "a character was shown before it was complete"
            )


@pytest.mark.parametrize("seed", range(30))
def test_streaming_any_bytes(seed: int, tokenizer: Tokenizer) -> None:
    """Random ids are mostly invalid UTF-8; the text is still that of decoding all at once."""
    source = random.Random(seed)
    ids = [source.randrange(300) for _ in range(60)]
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def test_streaming_is_prompt(tokenizer: Tokenizer) -> None:
    """Complete characters come with their last token, not later; the decoder starts anew after finish."""
    decoder = tokenizer.stream()
    for _ in range(2):
        assert [decoder.push(token) for token in tokenizer.encode("abc")] == ["a", "b", "c"]
        euro = tokenizer.encode("€")
        assert len(euro) == 3
        assert [decoder.push(token) for token in euro] == ["", "", "€"]
        assert decoder.push(euro[0]) == ""
        assert decoder.finish() == "\ufffd"


def test_bos_comes_from_the_post_processor(folder: Path) -> None:
    values = json.loads((folder / "tokenizer.json").read_text())
    values["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]}},
    }
    values["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    values["padding"] = {
        "strategy": {"Fixed": 9},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer.json").write_text(json.dumps(values))
    tokenizer = Tokenizer.from_folder(folder)
    plain = tokenizer.encode("abcdef", add_special_tokens=False)
    assert len(plain) > 2, "a length limit or padding saved with the tokenizer must not apply"
    assert tokenizer.encode("abcdef") == [1, *plain]
    ids = tokenizer.apply_chat_template([{"role": "user", "content": "x"}], return_dict=False)
    assert ids.count(1) == 2, "one for each turn; none added before the template's own"


def test_special_tokens_and_templates_of_a_folder(folder: Path) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["bos_token"] = {"content": "<|endoftext|>", "special": True}
    settings["chat_template"] = [
        {"name": "tool_use", "template": "no"},
        {"name": "default", "template": "yes"},
    ]
    settings["added_tokens_decoder"] = {"300": {"content": "<|new|>", "special": True}}
    del settings["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / "special_tokens_map.json").write_text('{"eos_token": "<|im_end|>"}')
    tokenizer = Tokenizer.from_folder(folder)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.chat_template) == (0, 2, "yes")
    assert tokenizer.encode("a<|new|>")[-1] == tokenizer.highest_id == 300
    (folder / "chat_template.jinja").write_text("from a file")
    assert Tokenizer.from_folder(folder).chat_template == "from a file"


def test_broken_files(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json: cannot be read as JSON"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer_config.json").write_text(
        '{"added_tokens_decoder": {"999": {"content": "<|far|>", "special": true}}}'
    )
    with pytest.raises(CheckpointError, match=r"added token '<\|far\|>' has id 999.* next free id is 300"):
        Tokenizer.from_folder(folder)
    (folder / "tokenizer.json").write_text('{"model": {}}')
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a usable tokenizer"):
        Tokenizer.from_folder(folder)


def test_template_helpers() -> None:
    assert render_chat("{{ x | tojson }}", {"x": {"a": "<é>"}}) == '{"a": "<é>"}'
    assert len(render_chat("{{ strftime_now('%Y-%m-%d') }}", {})) == 10
    assert render_chat("a{% generation %}b{{ x }}{% endgeneration %}c", {"x": 1}) == "ab1c"
    assert (
        render_chat("{% for i in [1, 2, 3] %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", {})
        == "1"
    )
    with pytest.raises(ConfigurationError, match="does not accept these messages: roles must alternate"):
        render_chat("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(ConfigurationError, match="does not accept these messages"):
        render_chat("{% for %}", {})


def test_templates_run_in_a_sandbox() -> None:
    """A template is downloaded text: it must not reach Python's objects or change the messages."""
    with pytest.raises(ConfigurationError, match="unsafe"):
        render_chat("{{ ''.__class__.__mro__[1].__subclasses__() }}", {})
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(ConfigurationError):
        render_chat("{{ messages.append('y') }}", {"messages": messages})
    assert messages == [{"role": "user", "content": "x"}]
