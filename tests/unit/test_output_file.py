"""Files that commands write: whole or not at all, refused before the work."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from specee.cli.output_file import check_writable, write_whole
from specee.errors import ConfigurationError


def test_it_writes_utf8_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    check_writable(path, "--trace")
    assert list(tmp_path.iterdir()) == []
    write_whole(path, "naïve\r\n🙂\n", "--trace")
    assert path.read_bytes() == "naïve\r\n🙂\n".encode()
    assert list(tmp_path.iterdir()) == [path]


def test_it_replaces_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("an older and longer page")
    check_writable(path, "--trace")
    assert path.read_text() == "an older and longer page"
    write_whole(path, "new", "--trace")
    assert path.read_text() == "new"


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "page.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(ConfigurationError, match=r"--trace .*No space left"):
        write_whole(path, "new", "--trace")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_others_may_read_it_as_any_file(tmp_path: Path) -> None:
    plain, page = tmp_path / "plain", tmp_path / "page.html"
    plain.write_text("")
    write_whole(page, "", "--trace")
    assert stat.S_IMODE(page.stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "page.html"
    link.symlink_to(tmp_path / "real" / "page.html")
    check_writable(link, "--trace")
    write_whole(link, "new", "--trace")
    assert link.is_symlink()
    assert (tmp_path / "real" / "page.html").read_text() == "new"


@pytest.mark.parametrize("name", ["missing/page.html", "file/page.html", "folder", ""])
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match="--trace") as raised:
        check_writable(tmp_path / name, "--trace")
    assert str(tmp_path / name) in str(raised.value)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="there is none here")
def test_a_device_is_not_replaced() -> None:
    with pytest.raises(ConfigurationError, match="no file"):
        check_writable(Path("/dev/null"), "--trace")
