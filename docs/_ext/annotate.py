"""Annotated pages, and links between theory, notation, code and claims.

* For every module that ``docs/annotated/index.md`` names a page is made: docstrings and whole-line comments on the
  left, the code they stand in on the right, in reading order. The text is taken from the source when the site is built.
* A path such as ``pmp_ref/bsqh.py`` in any page becomes a link to its annotated page, a tag such as T4 a link to the
  section of the theory, the first use of a symbol on a page a link to the table of notation.
* Under each statement of the theory stand its claims with their last stored measurement and the faults they caught.
"""

from __future__ import annotations

import ast
import html
import math
import os
import re
from dataclasses import dataclass, field
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive
from formulas import display, latex, spans
from project import (
    DOCS,
    ROOT,
    TAG,
    Section,
    claims,
    docname,
    reading_order,
    results,
    section_of,
    sections,
    shelf,
    slug,
    symbol_of,
    symbol_rows,
    symbols,
)
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx.util import logging
from split import Row, blocks, split

log = logging.getLogger(__name__)


@dataclass
class Book:
    """All that links need to know, read once per build."""

    paths: list[str] = field(default_factory=reading_order)
    sections: dict[str, Section] = field(default_factory=sections)
    symbols: dict[str, str] = field(default_factory=symbols)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    defined: dict[str, dict[str, str]] = field(default_factory=dict)  # path → name → kind
    bases: dict[str, list[str]] = field(default_factory=dict)  # class → base classes, by bare name
    prose: dict[str, str] = field(default_factory=dict)  # Class.method → docstring
    shelf: dict[str, tuple[str, str]] = field(default_factory=shelf)
    imported: dict[str, dict[str, str]] = field(default_factory=dict)
    home: dict[str, list[str]] = field(default_factory=dict)  # bare name of a definition → paths

    def __post_init__(self) -> None:
        for path in self.paths:
            source = (ROOT / path).read_text(encoding="utf-8")
            self.rows[path] = split(source)
            self.defined[path] = {row.name: row.kind for row in self.rows[path] if row.name}
            for row in self.rows[path]:
                if row.name:
                    self.home.setdefault(row.name, []).append(path)
                    if row.prose:
                        self.prose[row.name] = row.prose
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef):
                    self.bases[node.name] = [b.id for b in node.bases if isinstance(b, ast.Name)]

    def inherited(self, name: str) -> tuple[str, str]:
        """(class, docstring) of the nearest base class that documents the method ``Class.method``."""
        owner, _, method = name.rpartition(".")
        queue = list(self.bases.get(owner, []))
        while queue:
            base = queue.pop(0)
            if f"{base}.{method}" in self.prose:
                return base, self.prose[f"{base}.{method}"]
            queue += self.bases.get(base, [])
        return "", ""

    def imports(self, path: str) -> dict[str, str]:
        """Imported name → page and anchor of its definition."""
        if path in self.imported:
            return self.imported[path]
        found = self.imported.setdefault(path, {})
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for alias in node.names:
                    for other in self.home.get(alias.name, []):
                        package = other.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                        if package == node.module or package.startswith(node.module + "."):
                            found[alias.asname or alias.name] = f"{docname(other)}#{alias.name}"
                            break
        return found

    def uses(self, path: str) -> list[str]:
        """The annotated modules that a module imports from, in reading order."""
        pages = {target.partition("#")[0] for target in self.imports(path).values()}
        return [other for other in self.paths if docname(other) in pages and other != path]

    def used_by(self, path: str) -> list[str]:
        """The annotated modules of the same package that import from it, in reading order."""
        package = path.partition("/")[0]
        return [other for other in self.paths if other.startswith(f"{package}/") and path in self.uses(other)]

    def locate(self, name: str, path: str) -> str | None:
        """Page and anchor of a definition named in the prose of ``path``."""
        name = name.lstrip("~.!").removesuffix("()")
        if name in self.defined[path]:
            return f"#{name}"
        methods = [known for known in self.defined[path] if known.endswith(f".{name}")]
        if len(methods) == 1:
            return f"#{methods[0]}"
        for candidate in (name, name.rpartition(".")[2], ".".join(name.split(".")[-2:])):
            if len(self.home.get(candidate, [])) == 1:
                return f"{docname(self.home[candidate][0])}#{candidate}"
        return None


BOOK: Book


class Cell(nodes.General, nodes.Element):
    """One row: prose (children) beside code (attribute ``code``)."""


class Inline(nodes.Inline, nodes.TextElement):
    """A span with a class."""


def inline(text: str, path: str) -> list[nodes.Node]:
    """The nodes of one line of prose of a module: literals, references, formulas, tags, emphasis."""
    result: list[nodes.Node] = []
    for piece in re.split(r"(``.+?``|:\w+:`[^`]+`)", text):
        if piece.startswith("``"):
            result.append(nodes.literal(piece[2:-2], piece[2:-2]))
        elif m := re.fullmatch(r":\w+:`([^`]+)`", piece):
            literal = nodes.literal(m[1].lstrip("~."), m[1].lstrip("~."))
            where = BOOK.locate(m[1], path)
            if where is None:
                if not known(m[1]):
                    log.warning("%s: no definition of %s", path, m[1])
                result.append(literal)
            else:
                result.append(link(where, literal, "definition"))
        else:
            end = 0
            for start, stop in spans(piece):
                result += plain(piece[end:start])
                result.append(nodes.math(piece[start:stop], latex(piece[start:stop])))
                end = stop
            result += plain(piece[end:])
    return result


def known(name: str) -> bool:
    """True if a dotted name is a module, or a definition in a module, that has no page of its own."""
    path = ROOT / name.lstrip("~.").replace(".", "/")
    if path.with_suffix(".py").is_file() or path.is_dir():
        return True
    module = path.parent.with_suffix(".py")
    return module.is_file() and re.search(rf"^(class|def) {path.name}\b", module.read_text("utf-8"), re.M) is not None


def plain(text: str) -> list[nodes.Node]:
    """Text without literals and formulas: tags become links, ``*words*`` emphasis."""
    result: list[nodes.Node] = []
    for i, part in enumerate(re.split(r"\*([A-Za-z][\w ,-]*)\*", text)):
        if i % 2:
            result.append(nodes.emphasis(part, part))
            continue
        end = 0
        for m in TAG.finditer(part):
            tag = section_of(m[1], BOOK.sections)
            if tag is not None:
                result += [
                    nodes.Text(part[end : m.start()]),
                    link(BOOK.sections[tag].target, nodes.Text(m[0]), "tag"),
                ]
                end = m.end()
        result.append(nodes.Text(part[end:]))
    return [node for node in result if not isinstance(node, nodes.Text) or node.astext()]


def link(target: str, content: nodes.Node, kind: str) -> nodes.reference:
    """A reference that ``resolve`` completes; ``target`` is page#anchor."""
    node = nodes.reference("", "", content, classes=[kind], internal=True)
    node["project-target"] = target
    return node


def prose_nodes(text: str, path: str) -> list[nodes.Node]:
    """The blocks of a docstring."""
    result: list[nodes.Node] = []
    for block in blocks(text):
        if block.kind == "paragraph":
            result.append(nodes.paragraph("", "", *inline(block.text, path)))
        elif block.kind == "heading":
            result.append(nodes.paragraph("", "", nodes.strong(block.text, block.text)))
        elif block.kind == "formula":
            lines = [
                line for line in re.split(r"\n|(?<=[,;]) {2,}", block.text) if line.strip()
            ]  # the column is narrow
            result += [nodes.math_block(line, display(line)) for line in lines]
        elif block.kind == "code":
            result.append(nodes.literal_block(block.text, block.text, language="none"))
        elif block.kind == "list":
            items = [nodes.list_item("", nodes.paragraph("", "", *inline(t, path))) for t in block.items]
            result.append(nodes.bullet_list("", *items))
        else:
            items = []
            for head, *rest in block.rows:
                items.append(
                    nodes.definition_list_item(
                        "",
                        nodes.term("", "", *inline(head, path)),
                        nodes.definition("", nodes.paragraph("", "", *inline(" ".join(rest), path))),
                    )
                )
            result.append(nodes.definition_list("", *items))
    return result


MOST = 8  # modules named at the head of a page


def lead(path: str) -> nodes.Node:
    """What the index says of a module, where it stands, which modules it uses and which use it."""
    heading, said = BOOK.shelf[path]
    result = nodes.paragraph("", "", *inline(said[0].upper() + said[1:], path), classes=["lead"])
    result += nodes.Text(". In ")
    result += link(f"annotated/index#{slug(heading)}", nodes.Text(heading), "path")
    for verb, others in (("uses", BOOK.uses(path)), ("used by", BOOK.used_by(path))):
        for i, other in enumerate(others[:MOST]):
            result += nodes.Text(", " if i else f"; {verb} ")
            result += link(docname(other), nodes.Text(other.removeprefix("pmp_ref/")), "path")
        if len(others) > MOST:
            result += nodes.Text(f" and {len(others) - MOST} more")
    result += nodes.Text(".")
    return result


class Annotated(Directive):
    """``{annotated} pmp_ref/bsqh.py``: the rows of a module."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        path = self.arguments[0]
        env = self.state.document.settings.env
        env.note_dependency(str(ROOT / path))
        module = path.removesuffix(".py").replace("/", ".")
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        domain = env.get_domain("py")
        body: list[nodes.Node] = [lead(path)]
        names = [(name, kind) for name, kind in BOOK.defined[path].items() if kind != "method"]
        if len(names) > 2:
            contents = nodes.paragraph(classes=["contents"])
            for name, _ in names:
                contents += link(f"#{name}", nodes.literal(name, name), "definition")
                contents += nodes.Text(" ")
            body.append(contents)
        for row in BOOK.rows[path]:
            cell = Cell()
            if row.name:
                cell["ids"].append(row.name)
                kind = {"class": "class", "function": "function", "method": "method"}[row.kind]
                domain.note_object(f"{module}.{row.name}", kind, row.name, location=self.state.document)
                title = nodes.paragraph(classes=["name"])
                title += link(f"#{row.name}", nodes.literal(row.name, row.name), "definition")
                cell += title
            # A ruled heading, "--- T9 -------", without its rule.
            cell += prose_nodes(re.sub(r"^[-—─=]* *(.*?) *[-—─=]{6,}$", r"\1", row.comment, flags=re.M), path)
            cell += prose_nodes(row.prose, path)
            if row.name and not row.prose:
                base, text = BOOK.inherited(row.name)
                if base:
                    where = BOOK.locate(f"{base}.{row.name.rpartition('.')[2]}", path)
                    note = nodes.paragraph(classes=["inherited"])
                    note += nodes.Text("As in ")
                    note += link(where or f"#{base}", nodes.literal(base, base), "definition")
                    note += nodes.Text(": ")
                    note += inline(blocks(text)[0].text, path)
                    cell += note
            code = row.code(lines)
            shown = [n for n in row.code_lines if lines[n - 1].strip()]
            cell["code"] = code
            cell["lines"] = (shown[0], shown[-1]) if shown else None
            cell["path"] = path
            body.append(cell)
        return body


# --------------------------------------------------------------------------------------------------------- HTML


def visit_cell(self: Any, node: Cell) -> None:
    """Open the row and its prose; the code follows at the end."""
    ids = f' id="{html.escape(node["ids"][0])}"' if node["ids"] else ""
    wide = " wide" if not node["code"] else " bare" if not node.children else ""
    self.body.append(f'<section class="row{wide}"{ids}>\n<div class="prose">\n')


def depart_cell(self: Any, node: Cell) -> None:
    """Close the prose, put the code beside it."""
    self.body.append("</div>\n")
    if node["code"]:
        first, last = node["lines"]
        where = f"{node['path']}, line {first}" if first == last else f"{node['path']}, lines {first} to {last}"
        number = f"{first}" if first == last else f"{first}–{last}"
        text = code_html(node, self.builder)
        end = imports_end(node["code"])
        parts = text.split("\n")
        head, rest = "\n".join(parts[:end]), "\n".join(parts[end:]).strip("\n")
        fold = f'<details class="imports"><summary>Imports</summary>{pre(head, where)}</details>' if end else ""
        self.body.append(
            f'<div class="code"><span class="lines" title="{where}">{number}</span>'
            f"{fold}{pre(rest, where) if rest else ''}</div>\n"
        )
    self.body.append("</section>\n")


def pre(text: str, where: str) -> str:
    """Highlighted code in a box that can be scrolled."""
    return f'<pre class="highlight" tabindex="0" aria-label="{where}">{text}</pre>'


def imports_end(code: str) -> int:
    """The number of lines at the head of the code that are imports; 0 where it does not begin with them."""
    try:
        body = ast.parse(code).body
    except SyntaxError:  # the head of a function, without its body
        return 0
    end = 0
    for statement in body:
        if not isinstance(statement, ast.Import | ast.ImportFrom):
            break
        end = statement.end_lineno or 0
    return end


def code_html(node: Cell, builder: Any) -> str:
    """Highlighted code; tags in comments and imported names are links."""
    path = node["path"]
    text = highlight(node["code"], PythonLexer(stripnl=False), HtmlFormatter(nowrap=True)).rstrip("\n")
    here = docname(path)

    def tag(m: re.Match[str]) -> str:
        section = section_of(m[1], BOOK.sections)
        if section is None:
            return m[0]
        found = BOOK.sections[section]
        uri = f"{builder.get_relative_uri(here, found.page)}#{found.anchor}"
        return f'<a class="tag" href="{uri}">{m[0]}</a>'

    text = re.sub(r'<span class="(?:c1|s[12]|sd|ch)">[^<]*</span>', lambda m: TAG.sub(tag, m[0]), text)
    imported = BOOK.imports(path)
    local = {name: f"{here}#{name}" for name in BOOK.defined[path] if "." not in name}

    def name(m: re.Match[str]) -> str:
        target = imported.get(m[2]) or local.get(m[2])
        if target is None:
            return m[0]
        page, _, mark = target.partition("#")
        uri = "" if page == here else builder.get_relative_uri(here, page)
        return f'<a class="{m[1]}" href="{uri}#{mark}">{m[2]}</a>'

    return re.sub(r'<span class="(n|nb)">(\w+)</span>', name, text)


# ---------------------------------------------------------------------------------------------------- transforms


def generate(app: Any) -> None:
    """Write the stub of each annotated page; what they show is read from the source."""
    global BOOK
    missing = [path for path in reading_order() if not (ROOT / path).is_file()]
    for path in missing:
        log.warning("docs/annotated/index.md names %s, which does not exist", path)
    BOOK = Book([path for path in reading_order() if path not in missing])
    wanted = set()
    for path in BOOK.paths:
        stub = DOCS / f"{docname(path)}.md"
        title = path.removeprefix("pmp_ref/")
        text = f"# {title}\n\n```{{annotated}} {path}\n```\n"
        if not stub.exists() or stub.read_text(encoding="utf-8") != text:
            new = stub.with_suffix(f".{os.getpid()}")  # two builds at once must not see half a file
            new.write_text(text, encoding="utf-8")
            os.replace(new, stub)
        wanted.add(stub)
    for stub in (DOCS / "annotated").glob("*.*.md"):
        if stub not in wanted:
            stub.unlink()


def add_toctree(app: Any, name: str, source: list[str]) -> None:
    """The annotated pages in reading order, behind the text of their index. Pages not yet written are left out."""
    if name == "index":
        for page in ("backends", "verification", "conformance", "performance"):
            if not (DOCS / f"{page}.md").is_file():
                source[0] = source[0].replace(f"\n{page}\n", "\n")
    if name == "annotated/index":
        entries = "\n".join(f"{p.removeprefix('pmp_ref/')} </{docname(p)}>" for p in BOOK.paths)
        source[0] += f"\n```{{toctree}}\n:hidden:\n\n{entries}\n```\n"


def mark_notation(app: Any, document: nodes.document) -> None:
    """Anchors for the rows of the table of notation."""
    if app.env.docname != "notation":
        return
    expected = symbol_rows()
    found = []
    for row in document.findall(nodes.row):
        formulas = [m.astext() for m in next(iter(row.findall(nodes.entry))).findall(nodes.math)]
        if formulas and isinstance(row.parent, nodes.tbody):
            keys = [symbol_of(f) for f in formulas]
            found.append(keys)
            target = BOOK.symbols[keys[0]]
            if target not in [i for r in document.findall(nodes.row) for i in r["ids"]]:
                row["ids"].append(target)
    if found != expected:
        log.warning("notation.md: the symbols read from the text are not those of the table")


def add_dark_pictures(app: Any, document: nodes.document) -> None:
    """Beside a picture NAME.png that has a dark one, NAME-dark.png: each is shown on its own paper."""
    folder = (DOCS / app.env.docname).parent
    for image in list(document.findall(nodes.image)):
        dark = image["uri"].removesuffix(".png") + "-dark.png"
        if image["uri"].endswith(".png") and (folder / dark).is_file():
            other = image.deepcopy()
            other["uri"], other["classes"] = dark, [*image["classes"], "on-dark"]
            image["classes"].append("on-light")
            image.parent.insert(image.parent.index(image) + 1, other)


def decorate_theory(app: Any, document: nodes.document) -> None:
    """Claims, margins and faults under each statement."""
    if not app.env.docname.startswith("theory/"):
        return
    env = app.env
    stored = results()
    env.note_dependency(str(DOCS / "verification.json"))
    sources = claims()
    for section in document.findall(nodes.section):
        title = section.next_node(nodes.title)
        if title is None:
            continue
        m = re.match(r"(T\d+[ab]?) — ", title.astext())
        tag = m[1] if m else "S5" if title.astext() == "The algorithm" else None
        if tag is None:
            continue
        own = [c for c in sources if section_of(c.tag, BOOK.sections) == tag]
        code = next(
            (p for p in reversed(list(section.findall(nodes.paragraph))) if p.astext().startswith("Code:")), None
        )
        if code is None:
            continue
        code["classes"].append("code-line")
        panel = nodes.container(classes=["claims"])
        for claim in own:
            panel += claim_line(claim, None if stored is None else stored.claims.get(claim.tag))
        if own and stored is None:
            hint = nodes.paragraph(classes=["hint"])
            hint += nodes.Text("No measurement is stored with these pages; make one with ")
            hint += nodes.literal("", "python -m verification")
            hint += nodes.Text(".")
            panel += hint
        elif own and stored is not None:
            panel += nodes.paragraph("", f"Measured last: {stored.settings}.", classes=["hint"])
        if own:
            code.parent.insert(code.parent.index(code) + 1, panel)


def claim_line(claim: Any, result: dict[str, Any] | None) -> nodes.Node:
    """One claim: link, measurement, margin, faults."""
    line = nodes.paragraph(classes=["claim"])
    name = nodes.strong(claim.tag, claim.tag)
    if claim.path in BOOK.paths:
        line += link(f"{docname(claim.path)}#{claim.function}", name, "claim-link")
    else:
        line += name
    line += nodes.Text(f" {claim.title}. ")
    if result is not None and not result["applicable"]:
        line += nodes.Text("Not applicable in this dtype.")
    elif result is not None:
        verdict = "holds" if result["holds"] else "FAILS"
        sign = {"<=": "≤", ">=": "≥"}[result["sense"]]
        line += Inline("", verdict, classes=["holds" if result["holds"] else "fails"])
        line += nodes.Text(
            f": measured {number(result['measured'])} {sign} {number(result['bound'])}, margin "
            f"{number(result['margin'], 3)}, {result['instances']} instances."
        )
        if result["catches"]:
            items = "".join(f"<li>{html.escape(f)}</li>" for f in result["catches"])
            count = len(result["catches"])
            details = (
                f'<details class="faults"><summary>{count} planted fault{"s" if count > 1 else ""} caught</summary>'
                f"<ul>{items}</ul></details>"
            )
            return nodes.container("", line, nodes.raw("", details, format="html"))
    return line


def number(value: Any, digits: int = 2) -> str:
    """A number for reading: 1.2·10⁻⁷."""
    if isinstance(value, str) or not math.isfinite(value):
        return str(value).replace("inf", "∞")
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.{max(digits, 3)}g}".replace("-", "−")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}·10{power}".replace("-", "−")


def resolve(app: Any, document: nodes.document, name: str) -> None:
    """Make links of paths, tags and first uses of symbols; complete the links made above; put drawings inline."""
    builder = app.builder
    if builder.format != "html":
        return
    pages = {p: docname(p) for p in BOOK.paths}
    for literal in list(document.findall(nodes.literal)):
        text = literal.astext()
        if inside(literal, nodes.reference, nodes.title):
            continue
        page = pages.get(text)
        if page is None and re.fullmatch(r"(pmp_ref|verification)/(\w+/?)*", text):  # a folder: its first page
            first = next((p for p in BOOK.paths if p.startswith(text.rstrip("/") + "/")), None)
            page = None if first is None else docname(first)
        if page is not None and page != name:
            literal.parent.replace(literal, link(page, literal.deepcopy(), "path"))
    if name != "notation":
        used: set[str] = set()
        for formula in list(document.findall(nodes.math)):
            key = symbol_of(formula.astext())
            alone = len(formula.astext()) <= len(key) + 6  # ε > 0 is, an equation is not
            if alone and key in BOOK.symbols and key not in used and not inside(formula, nodes.reference, nodes.title):
                used.add(key)
                formula.parent.replace(formula, link(f"notation#{BOOK.symbols[key]}", formula.deepcopy(), "symbol"))
    for formula in list(document.findall(nodes.math)):
        keep_together(formula)
    if not name.startswith("annotated/") or name == "annotated/index":
        for text in list(document.findall(nodes.Text)):
            if not inside(
                text,
                nodes.reference,
                nodes.title,
                nodes.literal,
                nodes.literal_block,
                nodes.math,
                nodes.math_block,
                nodes.raw,
            ):
                link_tags(text)
    for reference in document.findall(nodes.reference):
        target = reference.attributes.pop("project-target", None)
        if target is not None:
            page, _, mark = target.partition("#")
            uri = "" if page in ("", name) else builder.get_relative_uri(name, page)
            reference["refuri"] = uri + (f"#{mark}" if mark else "")
    for image in list(document.findall(nodes.image)):
        inline_drawing(image)


def keep_together(formula: nodes.math) -> None:
    """No line begins with the full stop or bracket behind a formula, none ends with the bracket before it."""
    outer = formula.parent if isinstance(formula.parent, nodes.reference) else formula
    parent = outer.parent
    place = parent.index(outer)
    after = parent[place + 1] if place + 1 < len(parent) else None
    before = parent[place - 1] if place > 0 else None
    tail = re.match(r"[.,;:)’”?!]+|-\w+", after.astext()) if isinstance(after, nodes.Text) else None
    head = re.search(r"[(“]+$", before.astext()) if isinstance(before, nodes.Text) else None
    if not tail and not head:
        return
    formula["head"], formula["tail"] = head[0] if head else "", tail[0] if tail else ""
    if tail:
        parent.replace(after, nodes.Text(after.astext()[tail.end() :]))
    if head:
        parent.replace(before, nodes.Text(before.astext()[: head.start()]))


def inside(node: nodes.Node, *kinds: type) -> bool:
    """True if a parent of the node is of one of the kinds."""
    parent = node.parent
    while parent is not None:
        if isinstance(parent, kinds):
            return True
        parent = parent.parent
    return False


def link_tags(text: nodes.Text) -> None:
    """Tags in a text become links to the theory."""
    content = text.astext()
    new: list[nodes.Node] = []
    end = 0
    for m in TAG.finditer(content):
        tag = section_of(m[1], BOOK.sections)
        if tag is None:
            continue
        if content[end : m.start()]:
            new.append(nodes.Text(content[end : m.start()]))
        new.append(link(BOOK.sections[tag].target, nodes.Text(m[1]), "tag"))
        end = m.end()
    if new:
        if content[end:]:
            new.append(nodes.Text(content[end:]))
        parent, place = text.parent, text.parent.index(text)
        parent.remove(text)
        for i, node in enumerate(new):
            parent.insert(place + i, node)


def inline_drawing(image: nodes.image) -> None:
    """A drawing with ``class="drawing"`` stands in the page itself, so that it follows the page's colours."""
    uri = image["uri"]
    if not uri.endswith(".svg"):
        return
    file = DOCS / uri.lstrip("/")
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    if 'class="drawing"' not in text:
        return
    alt = image.get("alt", "")
    if not alt:
        log.warning("%s: a drawing without alt text", uri)
    text = re.sub(r"<\?xml[^>]*\?>\s*", "", text)
    text = text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(alt, quote=True)}" ', 1)
    raw = nodes.raw("", f'<div class="figure" tabindex="0">{text}</div>', format="html")
    paragraph = image.parent
    if isinstance(paragraph, nodes.paragraph) and len(paragraph.children) == 1:
        paragraph.parent.replace(paragraph, raw)
    else:
        image.parent.replace(image, raw)


def page_context(app: Any, name: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Tell the template which pages have two columns."""
    context["annotated"] = name.startswith("annotated/") and name != "annotated/index"


def setup(app: Any) -> dict[str, Any]:
    """Register directive, nodes and transforms."""
    app.add_node(Cell, html=(visit_cell, depart_cell))
    app.add_node(
        Inline,
        html=(
            lambda self, node: self.body.append(self.starttag(node, "span", "")),
            lambda self, node: self.body.append("</span>"),
        ),
    )
    app.add_directive("annotated", Annotated)
    app.connect("builder-inited", generate)
    app.connect("source-read", add_toctree)
    app.connect("doctree-read", add_dark_pictures, priority=400)  # before Sphinx collects the pictures of a page
    app.connect("doctree-read", mark_notation)
    app.connect("doctree-read", decorate_theory)
    app.connect("doctree-resolved", resolve)
    app.connect("html-page-context", page_context)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": False}
