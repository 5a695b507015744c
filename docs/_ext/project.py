"""What the documentation knows about the project: modules, tags of the theory, symbols, claims. Standard library only.

The extension ``annotate`` makes links of it, the tests ``tests/test_docs_*.py`` hold that nothing is missing.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
RESULTS = DOCS / "verification.json"

TAG = re.compile(r"\b(T\d{1,2}[a-d]?|S5[a-e]?)\b(?!\.\d)")
PATH = re.compile(r"`((?:pmp_ref|verification)/[\w/]*(?:\.py)?)`")


def reading_order() -> list[str]:
    """Paths of the annotated modules, in the order in which ``docs/annotated/index.md`` names them."""
    paths = PATH.findall((DOCS / "annotated" / "index.md").read_text(encoding="utf-8"))
    return list(dict.fromkeys(p for p in paths if p.endswith(".py")))


def shelf() -> dict[str, tuple[str, str]]:
    """Path of an annotated module → (heading it stands under, what is said of it) in ``docs/annotated/index.md``."""
    found, heading = {}, ""
    for line in (DOCS / "annotated" / "index.md").read_text(encoding="utf-8").splitlines():
        heading = line[3:] if line.startswith("## ") else heading
        if m := re.match(r"\d+\. `([\w/]+\.py)` (.+)", line):
            found[m[1]] = heading, m[2]
    return found


def docname(path: str) -> str:
    """The page of a module: ``pmp_ref/layers/dense.py`` → ``annotated/pmp_ref.layers.dense``."""
    return "annotated/" + path.removesuffix(".py").replace("/", ".")


def chapters() -> dict[str, str]:
    """Page of each chapter of the theory → its text, in the order in which ``docs/theory/index.md`` names them."""
    index = (DOCS / "theory" / "index.md").read_text(encoding="utf-8")
    pages = [f"theory/{name}" for name in re.findall(r"^\d+\. \[[^]]+\]\((\w+)\.md\)", index, re.M)]
    return {page: (DOCS / f"{page}.md").read_text(encoding="utf-8") for page in pages}


@dataclass(frozen=True)
class Section:
    """The section of a statement: page and heading."""

    page: str
    heading: str

    @property
    def anchor(self) -> str:
        """The anchor of the heading."""
        return slug(self.heading)

    @property
    def target(self) -> str:
        """Page and anchor."""
        return f"{self.page}#{self.anchor}"


def sections() -> dict[str, Section]:
    """Tag → its section in the theory, in the order of the text; S5 is the algorithm."""
    found = {}
    for page, text in chapters().items():
        for m in re.finditer(r"^## ((T\d+[ab]?) — .+|The algorithm)$", text, re.M):
            found[m[2] or "S5"] = Section(page, m[1].strip())
    return found


def section_of(tag: str, known: dict[str, Section]) -> str | None:
    """The section a tag belongs to: T7a is one of its own, T10a is part of T10; None if there is none."""
    if tag in known:
        return tag
    return tag[:-1] if tag[-1].isalpha() and tag[:-1] in known else None


def slug(title: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@dataclass(frozen=True)
class ClaimSource:
    """A claim as its module declares it."""

    tag: str
    title: str
    path: str
    function: str


CLAIM = re.compile(
    r"@claim\(\s*tag=\"(?P<tag>[^\"]+)\",\s*title=\"(?P<title>[^\"]+)\".*?^def (?P<function>\w+)\(", re.M | re.S
)


def claims() -> list[ClaimSource]:
    """The claims in ``verification/claims/``, read from the sources."""
    result = []
    for path in sorted((ROOT / "verification" / "claims").glob("*.py")):
        for m in CLAIM.finditer(path.read_text(encoding="utf-8")):
            result.append(ClaimSource(m["tag"], m["title"], f"verification/claims/{path.name}", m["function"]))
    return result


def tags_in(path: Path) -> set[str]:
    """The tags that a file names."""
    return set(TAG.findall(path.read_text(encoding="utf-8")))


@dataclass(frozen=True)
class Results:
    """The stored results of ``python -m verification --json docs/verification.json``."""

    settings: str = ""
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)


def results() -> Results | None:
    """The stored results, or None where there are none."""
    if not RESULTS.is_file():
        return None
    data = json.loads(RESULTS.read_text(encoding="utf-8"))
    settings = f"{data['profile']} profile, {data['backend']}, {data['dtype']}, seed {data['seed']}"
    return Results(settings, {c["tag"]: c for c in data["claims"]})


def symbols() -> dict[str, str]:
    """Symbol (LaTeX, without its definition) → anchor of its row in ``docs/notation.md``."""
    result: dict[str, str] = {}
    for row in symbol_rows():
        target = "symbol-" + re.sub(r"\W+", "-", row[0]).strip("-")
        for key in row:
            result.setdefault(key, target)
    return result


def symbol_rows() -> list[list[str]]:
    """The symbols of each row of the tables in ``docs/notation.md``."""
    rows = []
    for line in (DOCS / "notation.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("| $"):
            cell = re.split(r"(?<!\\)\|", line)[1]
            rows.append([symbol_of(f) for f in re.findall(r"\$([^$]+)\$", cell)])
    return rows


def symbol_of(formula: str) -> str:
    """The symbol that a formula of the table defines or a formula of the text consists of."""
    formula = formula.strip()
    m = re.fullmatch(r"0 < (\S+) (?:<|\\le) 1", formula)
    head = m[1] if m else re.split(r"\s*(?:=|\\in\b|\\ge\b|\\le\b|<|>|:=)\s*", formula)[0].strip()
    bare = re.fullmatch(r"([A-Z](?:_(?:\w|\{\w+\}|\\\w+))|L_B)\(.*\)", head)
    return bare[1] if bare else head
