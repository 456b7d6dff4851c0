"""The public model: load a checkpoint into a backend, generate from it."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Seq
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from specee import env
from specee.acceptance import Acceptance
from specee.backends import Backend, make_backend
from specee.backends.protocol import SequenceState
from specee.backends.select import choose, numbered
from specee.chat import Chat
from specee.drafting import DraftHeads, built_in
from specee.engine import BURST, ActiveSequence, Generation, LatencyMeter, Request, get_ready, reserve
from specee.errors import ConfigurationError
from specee.models.checkpoint import Checkpoint, open_checkpoint
from specee.models.formats import WEIGHTS
from specee.models.packaged import packaged_speculator
from specee.models.speculator import Speculator, fingerprint, read_speculator
from specee.models.tokenizer import Tokenizer
from specee.options import NAMES, Options, listed, resolve
from specee.policies import Autoregressive, Policy, make_policy
from specee.prompts import Prompts, read_prompts
from specee.requests import Decode, make_request
from specee.result import GenerationResult
from specee.types import KVDtype, ModelConfig, WeightFormat

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Message = Mapping[str, Any]


class Streamer(Protocol):
    """What transformers' streamers are: ``put`` gets the prompt's ids, then each new token."""

    def put(self, value: Any) -> None:
        """Take ids of shape (tokens,)."""

    def end(self) -> None:
        """The generation is over, also when it failed."""


def load(
    source: str | Path | PreTrainedModel | None = None,
    *,
    weights: Literal["auto", "fp32", "bf16", "packed", "int8", "int4"] = "auto",
    device: str = "cpu",
    backend: str | None = None,
    kv_dtype: KVDtype | None = None,
    max_context: int | None = None,
    threads: int | None = None,
    speculator: str | Path | Speculator | Literal[False] | None = None,
) -> Model:
    """Load a model.

    ``source``: None for the default model (fetched on first use), a Hugging Face folder, a GGUF file, a hub
    id, or a ``PreTrainedModel``. ``weights``: how matrices are stored: fp32; bf16; ``packed``, a GGUF
    file's own formats; int8 or int4, quantised at load in blocks of 32. ``auto`` is packed for GGUF
    files, fp32 for fp32 checkpoints and bf16 for all others. ``kv_dtype``: fp32, bf16 or fp16; None is
    the weights' for fp32 and bf16, else fp16. ``max_context``: positions a sequence may have, at most
    the model's. ``threads``: of the native engine; None is SPECEE_NUM_THREADS or the physical cores.
    ``device``: ``cpu``, ``cuda`` or ``cuda:<index>``; ``backend``: None for the device's own, or
    ``reference``, torch alone. On ``cuda`` weights are bf16, int8 or int4, and a model that is there in bf16
    is used in place.
    ``speculator``: a file of parts fitted to this model (``specee fit``), which policies draft with; None is
    the one that comes with the package, if there is one for this model, False is none.

    Raises ConfigurationError, BackendUnavailableError, CheckpointError, UnsupportedModelError,
    CapacityError, DownloadError or OutOfMemoryError; nothing stays half-loaded.
    """
    if weights not in ("auto", *WEIGHTS):
        raise ConfigurationError(f"weights={weights!r}: allowed are 'auto', {', '.join(map(repr, WEIGHTS))}")
    if kv_dtype not in (None, "fp32", "bf16", "fp16"):
        raise ConfigurationError(f"kv_dtype={kv_dtype!r}: allowed are None, 'fp32', 'bf16', 'fp16'")
    threads = env.resolve_threads(threads)
    name = choose(device, backend)  # a missing backend is found out before anything is fetched
    device = numbered(device)  # for all that follows, whatever becomes the current one
    checkpoint = open_checkpoint(source, max_context=max_context)
    chosen: WeightFormat = checkpoint.natural_weights if weights == "auto" else weights
    formats = checkpoint.formats(chosen)
    fitted = _speculator(speculator, checkpoint)
    given = checkpoint.tensors_on(device, formats) if name == "cuda" else {}
    engine = make_backend(
        checkpoint.config,
        checkpoint.slabs(formats, given),
        chosen,
        formats,
        device=device,
        backend=backend,
        threads=threads,
        given=given,
    )
    return Model(checkpoint, engine, kv_dtype=kv_dtype, speculator=fitted)


def _speculator(
    source: str | Path | Speculator | Literal[False] | None, checkpoint: Checkpoint
) -> Speculator | Literal[False] | None:
    """Read a speculator file and make sure that it is this model's. Raises CheckpointError."""
    if isinstance(source, (str, Path)):
        mark = fingerprint(checkpoint.config, checkpoint.norms())
        return read_speculator(Path(source), checkpoint.config, mark)
    return source


class Model:
    """A loaded model. Made by :func:`load`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        backend: Backend,
        *,
        kv_dtype: KVDtype | None = None,
        speculator: Speculator | Literal[False] | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.backend = backend
        self.kv_dtype = kv_dtype
        self.latency = LatencyMeter(backend)
        self._speculator = speculator
        if speculator:
            _ = self.heads  # what does not fit is found out now

    @cached_property
    def heads(self) -> DraftHeads:
        """What the speculator drafts with; the package's is read when it is first needed."""
        found = packaged_speculator(self.checkpoint) if self._speculator is None else self._speculator
        return DraftHeads(self.backend, found or None)

    @cached_property
    def _no_heads(self) -> DraftHeads:
        return DraftHeads(self.backend)

    def _heads_for(self, policy: Policy) -> DraftHeads:
        """Plain decoding needs no fitted parts, and does not wait for them."""
        return self._no_heads if isinstance(policy, Autoregressive) else self.heads

    @property
    def config(self) -> ModelConfig:
        """Shape of the model; ``max_position`` is its context in positions."""
        return self.backend.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer. Raises ConfigurationError if it has none."""
        if self.checkpoint.tokenizer is None:
            raise ConfigurationError(
                f"{self.checkpoint.source} has no tokenizer: pass token ids to generate()"
            )
        return self.checkpoint.tokenizer

    @property
    def _decode(self) -> Decode | None:
        tokenizer = self.checkpoint.tokenizer
        return None if tokenizer is None else tokenizer.decode

    def generate(  # noqa: PLR0913 - the arguments are transformers'
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        *,
        max_new_tokens: int | None = None,
        do_sample: bool | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | Seq[int] | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        eos_token_id: int | Seq[int] | None = None,
        stop_strings: str | Seq[str] | None = None,
        pad_token_id: int | None = None,
        streamer: Streamer | None = None,
        policy: str | Policy = "autoregressive",
        acceptance: Acceptance | None = None,
        return_dict: bool = False,
        **unknown: Any,
    ) -> Any:
        """Continue prompts, with the meanings of transformers' ``generate``.

        ``input_ids`` and ``attention_mask`` are (batch, width) tensors, arrays or lists, padded on the
        left; one flat list is one prompt. Returns prompts and new tokens in the same kind, rows that
        end early filled with ``pad_token_id``; with ``return_dict`` a :class:`GenerationResult`.
        Options not given come from the checkpoint's generation_config.json, then from transformers'
        defaults.

        Noise of a sampled token depends on its row's ``seed``, its position and id alone: with one
        ``seed`` every row draws what it would draw by itself (equal prompts give equal texts); a list
        gives one seed a row; None a random one each. ``streamer`` needs a single prompt. ``stop_strings``
        end a row when one of them is complete in its new text (and stays in it); they need the tokenizer.

        ``policy``: how to decode, ``"name"`` or ``"name:setting=value,..."`` as in
        :func:`specee.policies.make_policy`, or an object; what comes out is the same with every policy, but
        for ``"specee:mode=approximate"``, whose tokens may leave early, unverified.
        ``acceptance``: ``"coupled"`` (None) keeps drafts that equal the token of plain decoding;
        ``"rejection"`` is classical rejection sampling, with which sampled output has the same distribution
        but depends on the policy.

        Raises ConfigurationError for a value that is not allowed, CapacityError if prompt and
        ``max_new_tokens`` exceed the context, TypeError for unknown arguments.
        """
        given = {
            "max_new_tokens": max_new_tokens, "do_sample": do_sample, "temperature": temperature,
            "top_k": top_k, "top_p": top_p, "min_p": min_p, "repetition_penalty": repetition_penalty,
            "seed": seed, "eos_token_id": eos_token_id, "stop_strings": stop_strings,
            "acceptance": acceptance,
        }  # fmt: skip
        try:
            if unknown:
                raise TypeError(f"generate() does not know {', '.join(sorted(unknown))}")
            if input_ids is None:
                raise ConfigurationError(
                    "input_ids is missing: pass token ids, or use generate_text() for a text"
                )
            pad, maskable = self._padding(pad_token_id, eos_token_id)
            prompts = read_prompts(input_ids, attention_mask, maskable, self.config.vocab_size)
            rows, width = prompts.ids.shape
            if streamer is not None and rows != 1:
                raise ConfigurationError(f"a streamer takes one prompt, and input_ids has {rows}")
            options = resolve(
                given, self.checkpoint.generation_defaults, self.checkpoint.eos_token_ids, rows, width
            )
            generation = self._start(prompts.rows, options, policy)
            _run(generation, prompts, streamer)
        finally:
            if streamer is not None:
                streamer.end()  # also when nothing was generated: a reader may be waiting
        result = _result(
            generation, prompts, pad if pad is not None else options.eos[0] if options.eos else 0
        )
        return result if return_dict else result.sequences

    def generate_text(self, prompt: str | Seq[Message], *, raw: bool = False, **options: Any) -> str:
        """The answer to a text or to chat messages, special tokens left out.

        A text becomes the user's message in the chat template; with ``raw``, or without a template, it is
        continued as it is. ``options`` are those of :meth:`generate`.
        """
        generation = self.start(self.encode(prompt, raw=raw), **options)
        for _ in generation:
            pass
        return self.tokenizer.decode(generation.sequences[0].generated, skip_special_tokens=True)

    def stream(self, prompt: str | Seq[Message], *, raw: bool = False, **options: Any) -> Iterator[str]:
        """Like :meth:`generate_text`, in pieces as they become certain; leaving the iterator stops it."""
        generation = self.start(self.encode(prompt, raw=raw), **options)
        decoder = self.tokenizer.stream(skip_special_tokens=True)
        for step in generation:
            if piece := "".join(decoder.push(token) for token in step[0]):
                yield piece
        if piece := decoder.finish():
            yield piece

    def encode(self, prompt: str | Seq[Message], *, raw: bool = False) -> list[int]:
        """Token ids of a text or of chat messages, as :meth:`generate_text` uses them."""
        tokenizer = self.tokenizer
        if isinstance(prompt, str):
            if raw or tokenizer.chat_template is None:
                return tokenizer.encode(prompt)
            prompt = [{"role": "user", "content": prompt}]
        elif raw:
            raise ConfigurationError("raw=True needs a text, not chat messages")
        ids: list[int] = list(tokenizer.apply_chat_template(prompt, return_dict=False))
        return ids

    def chat(self) -> Chat:
        """A conversation whose KV cache is kept from turn to turn."""
        return Chat(
            self.backend,
            self.kv_dtype,
            heads=self._heads_for,
            decode=self._decode,
            latency=self.latency,
        )

    def check_policy(self, policy: str | Policy) -> Policy:
        """The policy, if it can decode with this model. Raises ConfigurationError."""
        chosen = make_policy(policy)
        heads = self._heads_for(chosen)
        get_ready(chosen, heads.view, built_in(self.backend, heads))
        return chosen

    def options(self, rows: int, width: int, **given: Any) -> Options:
        """Options of :meth:`generate` by name, resolved for ``rows`` prompts of ``width`` tokens."""
        unknown = sorted(set(given) - set(NAMES))
        if unknown:
            raise TypeError(f"unknown generation options: {', '.join(unknown)}")
        said = {name: given.get(name) for name in NAMES}
        return resolve(said, self.checkpoint.generation_defaults, self.checkpoint.eos_token_ids, rows, width)

    def start(
        self,
        prompt: Seq[int],
        *,
        policy: str | Policy = "autoregressive",
        burst: float = BURST,
        **options: Any,
    ) -> Generation:
        """A generation of one prompt, for callers that drive the steps themselves: iterate over it.

        ``burst``: seconds for which tokens are gathered before a step gives them, 0 for none.
        """
        prompts = read_prompts(list(prompt), None, None, self.config.vocab_size)
        return self._start(prompts.rows, self.options(1, len(prompt), **options), policy, burst)

    def _start(
        self, rows: list[tuple[int, ...]], options: Options, policy: str | Policy, burst: float = BURST
    ) -> Generation:
        requests = [make_request(row, options, index, self._decode) for index, row in enumerate(rows)]
        return self.generation(requests, policy, burst=burst)

    def generation(
        self,
        requests: Seq[Request],
        policy: str | Policy = "autoregressive",
        state: SequenceState | None = None,
        *,
        burst: float = BURST,
    ) -> Generation:
        """A generation of requests that the caller has made, with processors and stops of its own.

        ``state``: of a single request, rows that hold its prompt already, with room for what may follow.
        ``burst``: as for :meth:`start`. Raises ConfigurationError, CapacityError, OutOfMemoryError.
        """
        chosen = self.check_policy(policy)  # before memory is asked for
        if state is None:
            sequences = reserve(self.backend, requests, self.kv_dtype)
        else:
            sequences = [ActiveSequence(0, requests[0], state)]
        heads = self._heads_for(chosen)
        return Generation(self.backend, sequences, chosen, heads, latency=self.latency, burst=burst)

    def _padding(self, given: int | None, eos: int | Seq[int] | None) -> tuple[int | None, int | None]:
        """The padding token, and the same where it can be told from the text: not if it also ends texts."""
        pad = given if given is not None else self.checkpoint.pad_token_id
        known: Any = pad  # what the caller gave need not be what the annotation says
        if pad is not None and not (
            isinstance(known, numbers.Integral) and 0 <= pad < self.config.vocab_size
        ):
            raise ConfigurationError(f"pad_token_id={pad!r}: allowed are 0..{self.config.vocab_size - 1}")
        ends = self.checkpoint.eos_token_ids if eos is None else listed(eos)
        return pad, None if pad in ends else pad


def _run(generation: Generation, prompts: Prompts, streamer: Streamer | None) -> None:
    if streamer is not None:
        streamer.put(prompts.for_streamer(prompts.rows[0]))
    for step in generation:
        if streamer is not None:
            for token in step[0]:
                streamer.put(prompts.for_streamer([token]))


def _result(generation: Generation, prompts: Prompts, pad: int) -> GenerationResult:
    sequences: list[ActiveSequence] = list(generation.sequences.values())
    tokens = tuple(tuple(sequence.generated) for sequence in sequences)
    return GenerationResult(
        sequences=prompts.completed(tokens, pad),
        tokens=tokens,
        finish_reasons=tuple(s.finish_reason for s in sequences if s.finish_reason is not None),
        prompt_tokens=sum(len(sequence.request.prompt) for sequence in sequences),
        prompt_seconds=generation.timing.prompt,
        decode_seconds=generation.timing.decode,
        statistics=generation.statistics,
    )
