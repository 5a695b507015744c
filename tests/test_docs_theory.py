"""Theory, code and claims are linked in both directions, and the links are checked here."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
sys.path.insert(0, str(DOCS / "_ext"))

import project  # noqa: E402

CHAPTERS = project.chapters()
SECTIONS = project.sections()
SOURCES = sorted([*(ROOT / "pmp_ref").rglob("*.py"), *(ROOT / "verification").rglob("*.py")])


def text_of(tag: str) -> str:
    """The section of a statement."""
    chapter = CHAPTERS[SECTIONS[tag].page]
    start = chapter.index(f"## {SECTIONS[tag].heading}\n")
    end = chapter.find("\n## ", start + 3)
    return chapter[start : end if end > 0 else None]


def test_sections_are_those_of_the_table() -> None:
    """The table on the first page of the theory names every statement in its order, and T0 to T24 are all there."""
    index = (DOCS / "theory" / "index.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \[(T\d+[ab]?)\]\((\w+)\.md#([^)]+)\)", index, re.M)
    assert [tag for tag, *_ in rows] == [tag for tag in SECTIONS if tag != "S5"]
    assert all(SECTIONS[tag].target == f"theory/{page}#{mark}" for tag, page, mark in rows)
    assert {f"T{i}" for i in range(25)} <= set(SECTIONS)


def test_chapters_are_those_of_the_folder() -> None:
    """The first page lists every chapter, its list of pages has them in the same order, and no statement is in two."""
    index = (DOCS / "theory" / "index.md").read_text(encoding="utf-8")
    names = [page.removeprefix("theory/") for page in CHAPTERS]
    assert {*names, "index"} == {p.stem for p in (DOCS / "theory").glob("*.md")}
    assert index.partition(":hidden:\n\n")[2].split("\n```")[0].split() == names
    assert sum(len(re.findall(r"^## T\d", text, re.M)) for text in CHAPTERS.values()) == len(SECTIONS) - 1


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_tags_in_the_code_have_a_section(source: Path) -> None:
    """Every tag in a source names a statement of the theory, or a part of one."""
    unknown = {tag for tag in project.tags_in(source) if project.section_of(tag, SECTIONS) is None}
    assert not unknown, f"{source.relative_to(ROOT)} names {sorted(unknown)}; the theory has no such section"


def test_unknown_tags_are_seen(tmp_path: Path) -> None:
    """The check above can fail."""
    file = tmp_path / "x.py"
    file.write_text('"""By T29 and T5, (T7a), T10b."""\n', encoding="utf-8")
    found = project.tags_in(file)
    assert found == {"T29", "T5", "T7a", "T10b"}
    assert [tag for tag in found if project.section_of(tag, SECTIONS) is None] == ["T29"]


@pytest.mark.parametrize("tag", [tag for tag in SECTIONS if tag != "S5"])
def test_statements_are_named_by_code_and_checked(tag: str) -> None:
    """Every statement is named in the package or in ``verification``, and has at least one claim."""
    named = {project.section_of(found, SECTIONS) for source in SOURCES for found in project.tags_in(source)}
    assert tag in named, f"no code names {tag}"
    claimed = {project.section_of(claim.tag, SECTIONS) for claim in project.claims()}
    assert tag in claimed, f"no claim checks {tag}"


def test_claims_belong_to_a_statement() -> None:
    """A claim with a tag of the theory has its section; A1, A2, … speak of the libraries, not of the theory."""
    for claim in project.claims():
        assert project.section_of(claim.tag, SECTIONS) or claim.tag.startswith("A"), claim


def test_claims_read_from_the_sources_are_those_registered() -> None:
    """The pages read the claims from the sources; ``verification`` registers the same ones."""
    from verification.claim import CLAIMS
    from verification.runner import load_all

    load_all()
    registered = {(c.tag, c.title, c.module) for c in CLAIMS.values() if c.module.startswith("verification.")}
    read = {(c.tag, c.title, c.path.removesuffix(".py").replace("/", ".")) for c in project.claims()}
    assert read == registered


CODE = re.compile(r"^Code: (.*?)$", re.M)
NAMES = re.compile(r"`([^`]+)`")


@pytest.mark.parametrize("tag", SECTIONS)
def test_code_lines_name_what_exists(tag: str) -> None:
    """Under each statement one line names code and claims: files that exist, names that are defined there."""
    line = CODE.search(text_of(tag))
    assert line is not None, f"{tag} has no line that begins with Code:"
    code, _, claim = line[1].partition("Claim:")
    paths = [name for name in NAMES.findall(code) if "/" in name]
    assert paths, f"{tag} names no code"
    for name in [*paths, *(n for n in NAMES.findall(claim) if "/" in n)]:
        assert (ROOT / name).exists(), f"{tag} names {name}, which does not exist"
    text = "\n".join(
        file.read_text(encoding="utf-8")
        for path in paths
        for file in ([ROOT / path] if path.endswith(".py") else (ROOT / path).glob("*.py"))
    )
    for name in (n for n in NAMES.findall(code) if "/" not in n):
        assert re.search(rf"\b(def|class) {name}\b|^    {name}\b", text, re.M), f"{tag}: no {name} in {paths}"
    if tag != "S5":
        modules = {c.path for c in project.claims() if project.section_of(c.tag, SECTIONS) == tag}
        named = {n for n in NAMES.findall(claim) if n.startswith("verification/")}
        assert modules & named, f"{tag}: its claims are in {sorted(modules)}, the line names {sorted(named)}"


def test_statements_have_proofs() -> None:
    """Every statement is followed by its proof (T0 is a definition and has none) and by what is measured."""
    for tag in SECTIONS:
        if tag not in ("T0", "S5"):
            assert "**Proof" in text_of(tag) and "∎" in text_of(tag), tag
        if tag != "S5":
            assert "**Measured.**" in text_of(tag), tag


def test_stored_results_are_of_today() -> None:
    """The stored verification, where there is one, knows every claim, and all of them hold."""
    stored = project.results()
    if stored is None:
        pytest.skip("docs/verification.json is not there; python -m verification --full --json makes it")
    assert {c.tag for c in project.claims()} == set(stored.claims)
    assert all(c["holds"] for c in stored.claims.values())
