"""What the documentation shows is run: every Python block, every ``pmp-ref`` line, every link to a file."""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

from pmp_ref.result import Status
from verification.page import FENCE, program
from verification.page import run as run_program

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    p
    for p in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    # _build is made by the build, and so are the stubs annotated/*.*.md, which hold no block
    if "_build" not in p.parts and p.is_file() and p.name.count(".") == 1
)
LANGUAGES = {"python", "console", "bash", "sh", "text", "json", "{toctree}", "{annotated}"}


def has_python(page: Path) -> bool:
    """Whether the page has Python that needs no package beside our own."""
    return any(f[1:3] == ("python", "") for f in FENCE.findall(page.read_text(encoding="utf-8")))


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_have_a_known_language(page: Path) -> None:
    """A block without a language, or with one that is not listed, would be run by nobody."""
    found = {language for _, language, *_ in FENCE.findall(page.read_text(encoding="utf-8"))}
    assert found <= LANGUAGES, f"{name(page)}: {found - LANGUAGES}; signatures and output are `text`"


def run(page: Path, text: str, directory: Path, *warnings: str) -> None:
    """The program of the page: in an empty directory, warnings as errors, no window."""
    done = run_program(text, directory, "-W", "error", *warnings, quiet=True)
    assert done.returncode == 0, f"{name(page)}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.mark.parametrize("page", [p for p in PAGES if has_python(p)], ids=name)
def test_python_blocks_run(page: Path, tmp_path: Path) -> None:
    """The default run takes one epoch here, for time; as it stands it is run by ``test_library.py -m slow``."""
    run(page, program(page).replace("epochs=24", "epochs=1"), tmp_path)


MORE = sorted(
    {(page, needed) for page in PAGES for _, _, needed, _ in FENCE.findall(page.read_text("utf-8")) if needed}
)


@pytest.mark.parametrize(("page", "needs"), MORE, ids=[f"{name(page)}-{needs}" for page, needs in MORE])
def test_python_blocks_that_need_more_run(page: Path, needs: str, tmp_path: Path) -> None:
    """```python needs PACKAGES: those blocks of a page, behind the ones that need nothing, where they are installed,
    with the commands of ```console needs PACKAGES between them. One epoch for twelve, for time."""
    if missing := [package for package in needs.split() if importlib.util.find_spec(package) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    # MLflow calls what SQLAlchemy deprecates: what such packages say of each other is no fault of the page.
    short = re.sub(r"(epochs = |'--epochs', ')12\b", r"\g<1>1", program(page, needs))
    run(page, short, tmp_path, "-W", "default::DeprecationWarning")
    if needs == "tensorboard":
        assert list(tmp_path.rglob("events.out.tfevents.*"))


def commands() -> list[tuple[str, str]]:
    """(page, command line) of each ``pmp-ref`` and ``make`` line in the console blocks."""
    return [
        (name(page), line.strip().removeprefix("$ "))
        for page in PAGES
        for _, language, _, block in FENCE.findall(page.read_text(encoding="utf-8"))
        if language in ("console", "bash", "sh")
        for line in block.splitlines()
        if re.match(r"\s*(\$ )?(pmp-ref|make|python -m (verification|pmp_ref)\b(?!\.))", line)
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_are_understood(page: str, line: str) -> None:
    """Command lines parse with the real parsers, and the values they give are valid."""
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        check_make(words[1:])
        return
    arguments = words[3:] if words[:2] == ["python", "-m"] else words[1:]
    if words[:3] == ["python", "-m", "verification"]:
        from verification.__main__ import parser

        parser().parse_args(arguments)
        return
    check_pmp_ref(arguments)


def check_make(words: list[str]) -> None:
    """The targets of a make line exist."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        assert "=" in word or re.search(rf"^{re.escape(word)}:", makefile, re.M), f"no target {word} in the Makefile"


def check_pmp_ref(arguments: list[str]) -> None:
    """The command, its options and their values are understood; nothing is run."""
    from pmp_ref.app import main as app
    from pmp_ref.app.options import Options, resolve

    if arguments == ["--version"]:
        return
    command, *rest = arguments
    assert command in app.COMMANDS
    if command == "certify":
        app.certify_parser().read(rest)
    if command == "find":
        b = app.find_parser().read(rest)
        resolve({f.name: getattr(b, f.name) for f in fields(Options) if getattr(b, f.name, None) is not None})
    if command == "train" and rest not in (["--help"], ["-h"]):
        a = app.train_parser().parse_args(rest)
        given = {f.name: getattr(a, f.name) for f in fields(Options) if getattr(a, f.name) is not None}
        resolve(given)


def test_commands_are_checked() -> None:
    """The check above refuses what the program would refuse."""
    from pmp_ref.errors import InputError

    for wrong in (["train", "--rule", "newton"], ["train", "--rho", "many"], ["train", "--speed", "fast"]):
        with pytest.raises(InputError):
            check_pmp_ref(wrong)
    with pytest.raises(AssertionError):
        check_make(["nothing-of-this-name"])


LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_and_figures(page: Path) -> None:
    """Relative links lead to files and headings that exist; every figure has an alternative text."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for figure, label, target in LINK.findall(text):
        if figure:
            assert len(label) > 20, f"{name(page)}: the figure {target} needs a text for those who do not see it"
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = page if not path else (page.parent / path).resolve()
        assert file.exists(), f"{name(page)}: link to {target}, which does not exist"
        if heading and file.suffix == ".md":
            assert heading in headings(file), f"{name(page)}: {target} names no heading"


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {
        re.sub(r"[^\w\- ]", "", h.strip().lower().replace("`", "")).replace(" ", "-")
        for h in re.findall(r"^#{1,4} (.+)$", text, re.M)
    }


def test_every_status_has_its_advice() -> None:
    """The troubleshooting page has one section per status, under the name that is printed."""
    text = (ROOT / "docs" / "users" / "statuses.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.+)$", text, re.M)
    assert set(titles) - {"Other things that happen"} == {str(status) for status in Status}
