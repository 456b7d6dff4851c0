"""Links in the documents lead somewhere, and the changelog knows the version."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.packaging.project import ROOT, written_version

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


def broken_links(document: Path, text: str) -> list[str]:
    """Relative links of ``text`` (without their anchors) that are no file or folder beside ``document``."""
    targets = [link.split("#")[0] for link in LINK.findall(text) if "://" not in link]
    return [target for target in targets if target and not (document.parent / target).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_exist(document: Path) -> None:
    assert broken_links(document, document.read_text()) == []


def test_a_broken_link_is_noticed() -> None:
    text = "[a](no-such-file.md#part) [b](README.md) [c](#here) [d](scheme://host/x)"
    assert broken_links(ROOT / "README.md", text) == ["no-such-file.md"]


def test_the_changelog_has_the_version() -> None:
    assert f"## {written_version()}" in (ROOT / "CHANGELOG.md").read_text()
