"""The public API on a tiny model: arguments, kinds, streamers, errors."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import specee
from specee.errors import CapacityError, CheckpointError, ConfigurationError
from specee.models.speculator import Adapter, Speculator, fingerprint, write_speculator
from tests.tiny_models import tiny_folder, tiny_gguf

IDS = np.array([[5, 6, 7, 8]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder("llama", tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="module")
def model(folder: Path) -> specee.Model:
    return specee.load(folder, backend="reference")


def test_tokenizer_output_unpacks_into_generate(model: specee.Model) -> None:
    batch = model.tokenizer(["The quick", "a"], padding=True, return_tensors="np")
    done = model.generate(**batch, max_new_tokens=3)
    assert done.shape == (2, batch["input_ids"].shape[1] + 3)
    alone = model.generate(**model.tokenizer("a"), max_new_tokens=3, eos_token_id=[])
    assert isinstance(alone, list)


def test_result_tells_all(model: specee.Model) -> None:
    result = model.generate(IDS, max_new_tokens=5, eos_token_id=[], return_dict=True)
    assert result.sequences.shape == (1, 9)
    assert result.sequences[0, 4:].tolist() == list(result.tokens[0])
    assert (result.finish_reasons, result.prompt_tokens, result.new_tokens) == (("length",), 4, 5)
    assert result.prompt_tokens_per_second == pytest.approx(4 / result.prompt_seconds)
    assert result.decode_tokens_per_second == pytest.approx(4 / result.decode_seconds)


def test_early_rows_are_padded(model: specee.Model) -> None:
    prompts = [[5, 6], [7, 8]]
    free = model.generate(prompts, max_new_tokens=6, eos_token_id=[])
    stop = free[0][3]
    done = model.generate(prompts, max_new_tokens=6, eos_token_id=stop, pad_token_id=9)
    cut = free[0][2:].index(stop) + 3
    assert done[0][:cut] == free[0][:cut]
    assert set(done[0][cut:]) <= {9}


def test_seeded_sampling_does_not_depend_on_the_batch(model: specee.Model) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": True, "eos_token_id": []}
    batch = model.generate([[5, 6], [7, 8]], seed=3, **options)
    assert model.generate([[7, 8], [5, 6]], seed=3, **options) == batch[::-1]
    assert model.generate([[5, 6]], seed=3, **options)[0] == batch[0]
    apart = model.generate([[5, 6], [5, 6]], seed=[3, 4], **options)
    assert apart[0] == batch[0]
    assert apart[0] != apart[1]


def test_generation_defaults_of_the_checkpoint_count(folder: Path, tmp_path: Path) -> None:
    copy = tiny_folder("llama", tmp_path, seed=1)
    (copy / "generation_config.json").write_text('{"max_new_tokens": 3, "eos_token_id": 299}')
    result = specee.load(copy, backend="reference").generate(IDS, return_dict=True)
    assert result.new_tokens == 3


class Recorder:
    def __init__(self, fail_at: int = -1) -> None:
        self.seen: list[list[int]] = []
        self.ended = 0
        self.fail_at = fail_at

    def put(self, value: np.ndarray) -> None:
        if len(self.seen) == self.fail_at:
            raise RuntimeError("the reader is gone")
        self.seen.append(value.tolist())

    def end(self) -> None:
        self.ended += 1


def test_streamer_gets_prompt_then_tokens(model: specee.Model) -> None:
    streamer = Recorder()
    done = model.generate(IDS, max_new_tokens=3, eos_token_id=[], streamer=streamer)
    assert streamer.seen == [IDS[0].tolist(), *([token] for token in done[0, 4:].tolist())]
    assert streamer.ended == 1


@pytest.mark.parametrize("fail_at", [0, 2])
def test_streamer_is_ended_on_errors(model: specee.Model, fail_at: int) -> None:
    streamer = Recorder(fail_at)
    with pytest.raises(RuntimeError, match="reader"):
        model.generate(IDS, max_new_tokens=3, eos_token_id=[], streamer=streamer)
    assert streamer.ended == 1


@pytest.mark.parametrize(
    "wrong", [{"max_new_tokens": 10**6}, {"do_sample": True, "top_p": 7.0}, {"unheard_of": 1}]
)
def test_streamer_is_ended_when_nothing_starts(model: specee.Model, wrong: dict[str, Any]) -> None:
    streamer = Recorder()
    with pytest.raises((CapacityError, ConfigurationError, TypeError)):
        model.generate(IDS, streamer=streamer, **wrong)
    assert (streamer.seen, streamer.ended) == ([], 1)


def test_rows_are_filled_with_the_first_eos_as_transformers_does(folder: Path) -> None:
    """Without a padding token, and whatever the order of the ids."""
    model = specee.load(folder, backend="reference")
    model.checkpoint = dataclasses.replace(model.checkpoint, pad_token_id=None)
    prompts = [[5, 6], [7, 8]]
    free = model.generate(prompts, max_new_tokens=6, eos_token_id=[])
    stop = free[0][3]
    first = max(set(range(30)) - set(free[0]) - set(free[1]))
    done = model.generate(prompts, max_new_tokens=6, eos_token_id=[first, stop])
    cut = free[0][2:].index(stop) + 3
    assert cut < 8, "the row did not end early: nothing to fill"
    assert set(done[0][cut:]) == {first}


def test_text_that_begins_with_the_padding_token_keeps_it(folder: Path) -> None:
    model = specee.load(folder, backend="reference")
    first = model.encode("The quick", raw=True)[0]
    model.checkpoint = dataclasses.replace(model.checkpoint, pad_token_id=first)
    options: dict[str, Any] = {"max_new_tokens": 8, "eos_token_id": [], "raw": True}
    assert "".join(model.stream("The quick", **options)) == model.generate_text("The quick", **options)


def test_text_streamer_of_transformers_prints_the_text(model: specee.Model, capsys: Any) -> None:
    from transformers import TextStreamer

    streamer = TextStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    done = model.generate(IDS, max_new_tokens=6, eos_token_id=[], streamer=streamer)
    assert (
        capsys.readouterr().out.strip()
        == model.tokenizer.decode(done[0, 4:], skip_special_tokens=True).strip()
    )


def test_text_in_text_out(model: specee.Model) -> None:
    options: dict[str, Any] = {"max_new_tokens": 12, "eos_token_id": []}
    whole = model.generate_text("The quick", **options)
    assert "".join(model.stream("The quick", **options)) == whole
    messages = [{"role": "user", "content": "The quick"}]
    assert model.generate_text(messages, **options) == whole
    ids = model.encode("The quick", raw=True)
    assert ids == model.tokenizer.encode("The quick")
    assert ids != model.encode("The quick")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"input_ids": None}, ConfigurationError, "input_ids"),
        ({"max_new_tokens": 0}, ConfigurationError, "max_new_tokens=0"),
        ({"max_new_tokens": 509}, CapacityError, "513.*512"),
        ({"num_beams": 4, "foo": 1}, TypeError, "foo, num_beams"),
        ({"policy": "magic"}, ConfigurationError, "autoregressive"),
        ({"pad_token_id": 300}, ConfigurationError, "pad_token_id=300"),
        ({"input_ids": [[5], [6]], "streamer": Recorder()}, ConfigurationError, "one prompt"),
    ],
)
def test_wrong_arguments(
    model: specee.Model, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        model.generate(**{"input_ids": IDS, **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"weights": "int3"}, ConfigurationError, "weights='int3'.*'packed', 'int8', 'int4'"),
        ({"weights": "packed"}, ConfigurationError, "weights='packed'.*GGUF.*'int8' or 'int4'"),
        ({"kv_dtype": "fp8"}, ConfigurationError, "kv_dtype='fp8'"),
        ({"threads": 0}, ConfigurationError, "threads=0"),
        ({"backend": "gpu"}, ConfigurationError, "backend='gpu'"),
        ({"device": "tpu"}, ConfigurationError, "device='tpu'"),
        ({"max_context": 513}, CapacityError, "513"),
    ],
)
def test_wrong_load_arguments(
    folder: Path, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        specee.load(folder, **{"backend": "reference", **arguments})


def test_max_context_limits_sequences(folder: Path) -> None:
    short = specee.load(folder, backend="reference", max_context=6)
    assert short.generate(IDS, max_new_tokens=2, eos_token_id=[]).shape == (1, 6)
    with pytest.raises(CapacityError, match=r"7.*6"):
        short.generate(IDS, max_new_tokens=3)


@pytest.mark.parametrize(
    ("dtype", "weights"), [("float32", "fp32"), ("bfloat16", "bf16"), ("float16", "bf16")]
)
def test_weights_follow_the_checkpoint(tmp_path: Path, dtype: str, weights: str) -> None:
    folder = tiny_folder("llama", tmp_path, seed=1, dtype=dtype)
    assert specee.load(folder, backend="reference").backend.weights == weights
    for asked in ("fp32", "bf16", "int8", "int4"):
        assert specee.load(folder, backend="reference", weights=asked).backend.weights == asked  # type: ignore[arg-type]


def test_a_gguf_file_stays_packed(tmp_path: Path) -> None:
    path = tiny_gguf("llama", tmp_path / "model.gguf", seed=1, quantization="Q4_0")
    for asked, weights in (("auto", "packed"), ("packed", "packed"), ("bf16", "bf16"), ("int8", "int8")):
        model = specee.load(path, backend="reference", weights=asked)  # type: ignore[arg-type]
        assert model.backend.weights == weights
        assert model.generate(IDS, max_new_tokens=2, eos_token_id=[]).shape == (1, 6)


def test_environment_chooses_the_backend(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECEE_BACKEND", "reference")
    assert specee.load(folder).backend.name == "reference"


POLICIES = [
    "layerskip:exit_layer=1",
    "layerskip-adaptive:exit_layer=1",
    "threshold:exit_layer=1",
    "prompt-lookup",
]


@pytest.mark.parametrize("policy", POLICIES)
def test_policies_change_nothing_but_the_statistics(model: specee.Model, policy: str) -> None:
    prompts, mask = [[0, 5, 6, 5], [7, 8, 5, 6]], [[0, 1, 1, 1], [1, 1, 1, 1]]
    for options in ({}, {"do_sample": True, "seed": 3}, {"repetition_penalty": 1.3}):
        plain = model.generate(prompts, mask, max_new_tokens=9, return_dict=True, **options)
        other = model.generate(prompts, mask, max_new_tokens=9, return_dict=True, policy=policy, **options)
        assert other.sequences == plain.sequences
        assert other.finish_reasons == plain.finish_reasons
    assert plain.statistics.acceptance.drafted == 0
    assert sum(len(entry.tokens) for entry in other.statistics.rounds()) == other.new_tokens


def test_stop_strings_end_a_row(model: specee.Model) -> None:
    free = model.generate([5, 6, 7], max_new_tokens=12, eos_token_id=[])[3:]
    text = model.tokenizer.decode(free)
    stop = text[len(text) // 2 :][:3]
    for policy in ("autoregressive", "layerskip:exit_layer=1,speculation_length=4"):
        done = model.generate(
            [5, 6, 7], max_new_tokens=12, eos_token_id=[], stop_strings=stop, policy=policy, return_dict=True
        )
        assert done.finish_reasons == ("stop",)
        assert stop in model.tokenizer.decode(list(done.tokens[0]))
        assert stop not in model.tokenizer.decode(list(done.tokens[0][:-1]))


def test_rejection_is_an_option(model: specee.Model) -> None:
    options: dict[str, Any] = {"do_sample": True, "seed": 3, "max_new_tokens": 9, "eos_token_id": []}
    options["policy"] = "layerskip:exit_layer=1"
    once = model.generate(IDS, acceptance="rejection", **options)
    assert (once == model.generate(IDS, acceptance="rejection", **options)).all()
    with pytest.raises(ConfigurationError, match="acceptance='magic'"):
        model.generate(IDS, acceptance="magic", **options)


@pytest.mark.parametrize(
    "policy", ["layerskip:exit_layer=0", "layerskip:exit_layer=99", "magic", "layerskip:adapted=true"]
)
def test_a_policy_that_does_not_fit_is_refused(model: specee.Model, policy: str) -> None:
    with pytest.raises(ConfigurationError):
        model.generate(IDS, max_new_tokens=3, policy=policy)


def test_a_speculator_file_gives_exit_layers_a_head(
    folder: Path, tmp_path: Path, model: specee.Model
) -> None:
    config, checkpoint = model.config, model.checkpoint
    rng = np.random.default_rng(4)
    adapter = Adapter(
        np.ones(config.hidden_size, np.float32),
        rng.normal(0, 0.1, (4, config.hidden_size)).astype(np.float32),
        rng.normal(0, 0.1, (config.hidden_size, 4)).astype(np.float32),
    )
    made = Speculator(rng.permutation(config.vocab_size)[:40], {1: adapter})
    write_speculator(tmp_path / "fitted.safetensors", made, fingerprint(config, checkpoint.norms()))
    fitted = specee.load(folder, backend="reference", speculator=tmp_path / "fitted.safetensors")
    assert fitted.heads.adapted == (1,)
    options: dict[str, Any] = {"max_new_tokens": 9, "return_dict": True}
    done = fitted.generate(IDS, policy="layerskip:exit_layer=1,adapted=true", **options)
    assert done.tokens == model.generate(IDS, **options).tokens
    assert done.statistics.acceptance.drafted > 0
    other = tiny_folder("llama", tmp_path / "other", seed=2)
    with pytest.raises(CheckpointError, match="fitted to the model with fingerprint"):
        specee.load(other, backend="reference", speculator=tmp_path / "fitted.safetensors")
