"""Clients of transformers that know nothing of us, on a stock model and on an accelerated one.

    python -m bench.decode.clients [--weights fp32] [--client NAME]... [--rounds 2] [--tokens 64]

A text-generation pipeline, alone and with eight prompts in a batch; a chat loop that reads its streamer in a
thread; and lm-evaluation-harness with a question a call and with eight (left out where it is not installed).
Stock and ours take turns, whole client runs are timed, texts end where the model ends them. Seconds compare
only where the answers are the same, so it is told how often they are: with fp32 weights they have to be.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from specee.errors import ConfigurationError
from specee.models.checkpoint import open_checkpoint

from .. import options as common
from .. import prompts
from ..harness import run as harness
from ..progress import progress
from ..spread import ratio, spread
from .drop_in import models

Client = Callable[[Any, Any, list[str], int], Sequence[str]]
"""Model, tokenizer, prompts and new tokens in; answers out."""
_TURNS = (
    "Name a fruit.",
    "Now say it in capitals, twice.",
    "Write a sentence with it.",
    "Repeat that sentence.",
)
_READER_SECONDS = 600  # after which a reader that gets nothing gives up


def _pipeline(model: Any, tokenizer: Any, texts: list[str], tokens: int, rows: int = 1) -> Sequence[str]:
    import transformers

    tell = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer, device="cpu")
    chats = [[{"role": "user", "content": text}] for text in texts]
    found = tell(chats, max_new_tokens=tokens, do_sample=False, batch_size=rows, return_full_text=False)
    return [str(one[0]["generated_text"]) for one in found]


def _batched_pipeline(model: Any, tokenizer: Any, texts: list[str], tokens: int) -> Sequence[str]:
    return _pipeline(model, tokenizer, texts, tokens, rows=8)


def _chat(model: Any, tokenizer: Any, _: list[str], tokens: int) -> Sequence[str]:
    """Four turns, each read from its streamer while another thread generates."""
    import transformers

    history: list[dict[str, str]] = []
    for turn in _TURNS:
        history.append({"role": "user", "content": turn})
        inputs = tokenizer.apply_chat_template(
            history, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        streamer = transformers.TextIteratorStreamer(
            tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=_READER_SECONDS
        )
        more = {"streamer": streamer, "max_new_tokens": tokens, "do_sample": False}
        thread = threading.Thread(target=model.generate, kwargs={**inputs, **more})
        thread.start()
        history.append({"role": "assistant", "content": "".join(streamer)})
        thread.join()
    return [said["content"] for said in history[1::2]]


def _harness(model: Any, tokenizer: Any, _: list[str], __: int) -> Sequence[str]:
    return harness.evaluate(model, tokenizer).answers


def _batched_harness(model: Any, tokenizer: Any, _: list[str], __: int) -> Sequence[str]:
    return harness.evaluate(model, tokenizer, rows=8).answers


CLIENTS: dict[str, Client] = {
    "pipeline": _pipeline,
    "pipeline, batches of 8": _batched_pipeline,
    "chat": _chat,
    "lm-eval": _harness,
    "lm-eval, batches of 8": _batched_harness,
}


def measure(
    clients: Sequence[str] | None = None,
    *,
    weights: str = "fp32",
    model: str | None = None,
    threads: int,
    tokens: int = 64,
    rounds: int = 2,
    files: list[Path] | None = None,
    most_prompts: int | None = 8,
) -> dict[str, Any]:
    """Run and sum up. Raises ConfigurationError, and BackendUnavailableError without what is needed."""
    chosen = [name for name in CLIENTS if harness.is_installed() or "lm-eval" not in name]
    chosen = chosen if clients is None else list(clients)
    if tokens < 1 or rounds < 1 or not set(chosen) <= set(CLIENTS):
        raise ConfigurationError(
            f"tokens={tokens}, rounds={rounds}, clients={chosen}: allowed are 1 or more, and {list(CLIENTS)}"
        )
    import torch

    import specee

    torch.set_num_threads(threads)
    checkpoint = open_checkpoint(model)
    tokenizer = specee.as_tokenizer(specee.load(model, threads=threads))
    texts = prompts.load(files)[:most_prompts]
    both = models(checkpoint, weights, threads)
    for one in both:
        one.generation_config.eos_token_id = list(checkpoint.eos_token_ids)
        one.generation_config.pad_token_id = tokenizer.pad_token_id
        CLIENTS["chat"](one, tokenizer, texts, 1)  # what comes once is not counted
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in chosen}
    same: dict[str, int] = dict.fromkeys(chosen, 0)
    jobs = [name for _ in range(rounds) for name in chosen]
    for name in progress(jobs, "client", total=len(jobs)):
        answers = []
        for one, taken in zip(both, seconds[name], strict=True):
            begin = time.perf_counter()
            answers.append(list(CLIENTS[name](one, tokenizer, texts, tokens)))
            taken.append(time.perf_counter() - begin)
        same[name] += answers[0] == answers[1]
    return {
        "what": "clients of transformers, stock and accelerated, greedy",
        "weights": weights,
        "threads": threads,
        "new_tokens": tokens,
        "rounds": rounds,
        "clients": {
            name: {
                "seconds_stock": spread(stock),
                "seconds": spread(ours),
                "times_stock": ratio(stock, ours),
                "same_answers": same[name],
            }
            for name, (stock, ours) in seconds.items()
        },
        "not_measured": [name for name in CLIENTS if name not in chosen],
    }


def main() -> None:
    """Run and save."""
    parser = common.parser(__doc__, prompts=True)
    parser.add_argument("--weights", default="fp32", choices=("bf16", "fp32"))
    parser.add_argument("--client", action="append", choices=list(CLIENTS), help="may be given again")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64, help="of pipelines and chats, at most")
    parser.add_argument("--most-prompts", type=int, default=8, help="of pipelines")
    options = common.parse(parser)
    result = measure(
        options.client,
        weights=options.weights,
        model=options.model,
        threads=options.threads,
        tokens=options.tokens,
        rounds=options.rounds,
        files=options.prompts,
        most_prompts=options.most_prompts,
    )
    common.finish(options, "clients", result)


if __name__ == "__main__":
    main()
