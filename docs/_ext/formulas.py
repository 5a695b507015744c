"""Formulas in the plain text of docstrings: where they stand, and the same in LaTeX, which :mod:`mathml` sets.

Docstrings write formulas as one reads them in a terminal, ``J(w) − J(u) ≤ −ητ``, without marks. A formula is found by
what it is made of: words that hold a sign of mathematics (a Greek letter, a relation, an index, a root …), and with
them the single letters, numbers and brackets beside them. Only the standard library is used.
"""

from __future__ import annotations

import re
import unicodedata

FUNCTIONS = {"max", "min", "sup", "inf", "lim", "argmax", "log", "ln", "exp", "sin", "cos", "cosh", "tanh", "sgn"} | {
    "arccos",
    "arcosh",
    "softmax",
    "diag",
    "clip",
    "relu",
    "Var",
    "fl",
}
# Names of numbers.
WORDS = {"lo", "hi", "band", "gain", "rate", "memory", "growth", "step", "stride", "padding", "dilation"}
IDENTIFIERS = {*WORDS, "dx", "dp", "dg", "du", "dt"}
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΦΨΩϱϑ",
        "alpha beta gamma delta varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho varsigma sigma tau upsilon "
        "varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega varrho vartheta".split(),
        strict=True,
    )
)
SIGNS = {
    "−": "-",
    "±": r"\pm ",
    "∓": r"\mp ",
    "·": r"\cdot ",
    "×": r"\times ",
    "∘": r"\circ ",
    "⊙": r"\odot ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "≈": r"\approx ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∋": r"\ni ",
    "⊂": r"\subset ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "→": r"\to ",
    "←": r"\leftarrow ",
    "↦": r"\mapsto ",
    "∞": r"\infty ",
    "∇": r"\nabla ",
    "∂": r"\partial ",
    "∫": r"\int ",
    "⟨": r"\langle ",
    "⟩": r"\rangle ",
    "‖": r"\Vert ",
    "|": r"\vert ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "…": r"\dots ",
    "⋯": r"\cdots ",
    "∎": r"\blacksquare ",
    "⊥": r"\perp ",
    "ℓ": r"\ell ",
    "ℝ": r"\mathbb R ",
    "ℤ": r"\mathbb Z ",
    "′": "'",
    "″": "''",
    "‴": "'''",
    "{": r"\lbrace ",
    "}": r"\rbrace ",
}
FRACTIONS = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅛": (1, 8)}
ACCENTS = {"\u0302": "hat", "\u0303": "tilde", "\u0304": "bar", "\u0307": "dot", "\u030c": "check"}
RAISED = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ʰⁱʲᵏˡᵐⁿˢᶻ", "0123456789+-()hijklmnsz", strict=True)) | {"ᵀ": r"\top "}
LOWERED = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎₌ᵢⱼₖₗₘₙₜ", "0123456789+-()=ijklmnt", strict=True))

DECISIVE = re.compile(
    r"[=≤≥<>≠≈∈∉⊂→←↦√∛‖⟨⟩∇∂∫∞±∓×·∘⊙⌈⌊−+′″‴ℓ]|[" + "".join({*GREEK, *FRACTIONS, *RAISED, *LOWERED, *ACCENTS}) + r"]|"
    r"(?<=[^\W\d_])[_^](?=[\w{(\[∞+−*])|(?<=[)\]⟩‖])[_^]|(?<![\w*])[A-Za-z]\*(?![\w*])|"
    r"(?<!\w)[A-Za-z]\([\w,;· ]*\)"
)
OPERATOR = re.compile(r"[=≤≥<>≠≈∈∉⊂→←↦+−·×∘/:|±∓&-]|:=|<=>")
OPEN, CLOSE = "([⟨{⌈⌊", ")]⟩}⌉⌋"


def apart(text: str) -> str:
    """The text with accents as characters of their own: Ĉ as C and a circumflex; signs such as ≠ stay whole."""
    return "".join(c if c in SIGNS else unicodedata.normalize("NFD", c) for c in text)


def mathlike(word: str) -> bool:
    """Whether a word can be a part of a formula: no letters side by side but those of functions and indices."""
    bare = re.sub("[" + "".join(ACCENTS) + "]", "", apart(word))
    if re.search(r"[A-Z]\d|[A-Z][½⅔]|_[A-Z]{2}", bare):  # a tag, a name such as L0, a constant of the code
        return False
    if re.search(r"[^\w\s()\[\]{}⟨⟩⌈⌉⌊⌋|‖,;:.!=≤≥<>≠≈∈∉∋⊂∪∩→←↦√∛∇∂∫∞±∓×·∘⊙−+*/^′″‴…⋯⊥ℓ∎&⁺⁻⁽⁾₊₋₍₎₌-]", bare):
        return False
    for run in re.findall(r"[A-Za-z]+", re.sub(r"(?<=[_^])\{[^{}]*\}|(?<=_)[A-Za-z]+", "", bare)):
        most = 99 if re.search(r"[·‖⟨⟩√⌈⌉]|mean_", word) else 2 if DECISIVE.search(word) else 1  # ‖row‖, uᵀAu; not "of"
        if len(run) > most and run not in FUNCTIONS and run not in IDENTIFIERS:
            return False
    return re.search(r"\w|[∞√…]", bare) is not None or OPERATOR.fullmatch(word) is not None


def weak(word: str) -> bool:
    """Whether a word joins a formula beside it but is none alone: a number, ``a``, a function's name, an operator."""
    return not DECISIVE.search(word) and not re.fullmatch(r"[(\[|]*[b-zB-HJ-Z][)\]|]*", word)


def spans(text: str) -> list[tuple[int, int]]:
    """Where formulas stand in a line of prose."""
    found: list[tuple[int, int]] = []
    words = [(m.start(), m.end()) for m in re.finditer(r"\S+", text)]
    i = 0
    while i < len(words):
        j, last = i, i - 1
        while j < len(words):
            word = text[words[j][0] : words[j][1]]
            core = word.rstrip(".,;:")
            if not mathlike(core or word) or (j > i and _ends(text, words, i, j - 1)):
                break
            last, j = j, j + 1
        found += _formulas(text, words[i][0], words[last][1]) if last >= i else []
        i = max(last, i) + 1
    return found


def _ends(text: str, words: list[tuple[int, int]], first: int, last: int) -> bool:
    """Whether a formula ends behind a word: it has a stop, and no bracket is open."""
    inside = text[words[first][0] : words[last][1]]
    return inside[-1] in ".,;:" and _depth(inside) <= 0


def _depth(text: str) -> int:
    return sum((c in OPEN) - (c in CLOSE) for c in text)


def _formulas(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """The formulas in a run of words that can be parts of one: without stops, lone brackets and idle ends."""
    while start < end and text[end - 1] in ".,;:":
        end -= 1
    while start < end:
        run = text[start:end]
        first, last = run.split()[0], run.split()[-1]
        if run[0] in OPEN and not _closed(run):
            start += 1
        elif run[-1] in CLOSE and _depth(run) < 0:
            end -= 1
        elif OPERATOR.fullmatch(last) or (len(run.split()) > 1 and idle(last) and not _joined(run, -1)):
            end = start + len(run.rstrip()[: -len(last)].rstrip())
        elif OPERATOR.fullmatch(first) or (len(run.split()) > 1 and idle(first) and not _joined(run, 0)):
            start += len(first) + len(run[len(first) :]) - len(run[len(first) :].lstrip())
        else:
            break
        while start < end and text[end - 1] in ".,;: ":
            end -= 1
    run = text[start:end]
    whole = run and _nested(run) and run.count("‖") % 2 == run.count("|") % 2 == 0 and re.search(r"\w|∞", run)
    item = re.fullmatch(r"\([a-z]\)", run) or (run == "s" and re.search(r"\d $", text[:start]))  # a list, seconds
    return [(start, end)] if whole and not item and not all(map(weak, run.split())) else []


def idle(word: str) -> bool:
    """A word that has no part in the formula beside it unless an operator or a bracket joins them."""
    return re.fullmatch(r"[aAI]|\d[\d.,]*|" + "|".join(FUNCTIONS | WORDS), word.strip(".,;:")) is not None


def _joined(run: str, end: int) -> bool:
    """Whether the first (0) or last (−1) word of a run is joined to its neighbour."""
    words = run.split()
    own, other = (words[0], words[1]) if end == 0 else (words[-1], words[-2])
    if OPERATOR.fullmatch(other) or (end == 0 and own in FUNCTIONS):
        return True
    return (other[0] if end == 0 else other[-1]) in "=≤≥<>≠≈∈−+·×/" or _depth(own) != 0 or _depth(other) != 0


def _nested(run: str) -> bool:
    """Whether every bracket that is closed was open, and all are closed."""
    return _depth(run) == 0 and all(_depth(run[: i + 1]) >= 0 for i in range(len(run)))


def _closed(run: str) -> bool:
    """Whether the bracket at the head of a run is closed in it."""
    depth = 0
    for c in run:
        depth += (c in OPEN) - (c in CLOSE)
        if depth == 0:
            return True
    return False


def latex(text: str) -> str:
    """A formula in LaTeX."""
    text = apart(text)
    out: list[str] = []
    i = 0
    while i < len(text):
        piece, i = _atom(text, i)
        out.append(piece)
    return re.sub(r"(\\[A-Za-z]+) +(?![A-Za-z])", r"\1", "".join(out)).strip()


def _atom(text: str, i: int) -> tuple[str, int]:
    """LaTeX of what begins at ``i``, and where the next begins."""
    c = text[i]
    if c == " ":  # before a bracket it stays: g (B, n) is no function
        return ("\\ " if text[i + 1 : i + 2] == "(" and text[i - 1].isalnum() else " "), i + 1
    if m := re.compile(r"(\d[\d.]*)e([-+]?\d+)").match(text, i):
        return ("" if m[1] == "1" else rf"{m[1]}\cdot ") + f"10^{{{int(m[2])}}}", m.end()
    if c == "Σ" and text[i + 1 : i + 2] != "Δ":
        return r"\sum ", i + 1
    if c == "√" or c == "∛":
        inner, i = _argument(text, i + 1)
        return (rf"\sqrt{{{inner}}}" if c == "√" else rf"\sqrt[3]{{{inner}}}"), i
    if c in RAISED or c in LOWERED:
        table, sign = (RAISED, "^") if c in RAISED else (LOWERED, "_")
        j = i
        while j < len(text) and text[j] in table:
            j += 1
        return sign + _braced("".join(table[x] for x in text[i:j])), j
    if c in "_^":
        return _index(text, i)
    if c in FRACTIONS:
        return r"\frac{}{} ".format(*FRACTIONS[c]), i + 1
    if c == "*" and i > 0 and (text[i - 1].isalnum() or text[i - 1] in ACCENTS or text[i - 1] in ")]}"):
        return r"^{\ast}", i + 1
    if c == "*":
        return r"\ast ", i + 1
    if m := re.compile(r"[A-Za-z]{2,}").match(text, i):
        word = m[0]
        if word in FUNCTIONS or word == "mean":
            return (rf"\{word} " if word in NATIVE else rf"\operatorname{{{word}}}"), m.end()
        product = len(word) == 2 and word not in WORDS
        return (word if product else rf"\mathit{{{word}}}"), m.end()
    base = rf"\{GREEK[c]} " if c in GREEK else SIGNS.get(c, c)
    if i + 1 < len(text) and text[i + 1] in ACCENTS:
        return rf"\{ACCENTS[text[i + 1]]}{{{base.strip()}}}", i + 2
    return base, i + 1


NATIVE = {"max", "min", "sup", "inf", "lim", "log", "ln", "exp", "sin", "cos", "cosh", "tanh", "arccos"}


def _argument(text: str, i: int) -> tuple[str, int]:
    """What a root is taken of: a bracket, or a number or letter with its indices."""
    if i < len(text) and text[i] == "(":
        j, depth = i, 0
        while j < len(text):
            depth += (text[j] == "(") - (text[j] == ")")
            j += 1
            if depth == 0:
                break
        return latex(text[i + 1 : j - 1]), j
    m = re.compile(r"\d+|(?:[A-Za-z]+(?=\()|.)[\u0300-\u036f]?(?:_\w+)?").match(text, i)
    if m is None:
        return "", i
    if m[0].isalpha() and m[0] in FUNCTIONS:
        inner, j = _argument(text, m.end())
        return rf"{_atom(m[0] + ' ', 0)[0]}({inner})", j
    return latex(m[0]), m.end()


def _index(text: str, i: int) -> tuple[str, int]:
    """A subscript or superscript: ``_{l+1}``, ``_ad``, ``_{i,l}``, ``^s``, ``_[n]``."""
    sign, j = text[i], i + 1
    if j < len(text) and text[j] in "{([":
        end = next((k for k in range(j, len(text)) if _depth(text[j : k + 1]) == 0), len(text) - 1)
        inner = text[j + 1 : end] if text[j] == "{" else text[j : end + 1]
        return f"{sign}{{{latex(inner)}}}", end + 1
    after_derivative = i > 0 and text[i - 1] in "∂∇"
    several = r"[a-z],[a-z](?![a-z])|[A-Za-z]+|\d+|[^\W_][\u0300-\u036f]?|[∞+−*½⅓⅔¼¾]"
    m = re.compile(r"[^\W_]" if after_derivative else several).match(text, j)
    if m is None:
        return sign, j
    inner = m[0]
    if inner in FUNCTIONS:
        return rf"{sign}{{\{inner}}}" if inner in NATIVE else rf"{sign}{{\mathrm{{{inner}}}}}", m.end()
    if len(inner) > 2 and inner.isalpha():
        return rf"{sign}{{\mathrm{{{inner}}}}}", m.end()
    return sign + _braced(latex(inner)), m.end()


def _braced(index: str) -> str:
    """An index: one letter or sign as it is, more in braces."""
    return index if re.fullmatch(r"\w", index) else f"{index} " if re.fullmatch(r"\\[a-z]+", index) else f"{{{index}}}"


def display(line: str) -> str:
    """A line of a displayed formula: its words upright, the spaces between its parts kept."""
    parts, end = [], 0
    for start, stop in spans_of_display(line):
        parts += [words(line[end:start]), latex(line[start:stop])]
        end = stop
    return "".join([*parts, words(line[end:])])


def spans_of_display(line: str) -> list[tuple[int, int]]:
    """Where formulas stand in a displayed line: all but its words."""
    found: list[tuple[int, int]] = []
    for m in re.finditer(r"\S+", line):
        start, stop = m.span()
        article = m[0] in ("a", "I") and not re.search(r"[=+−·]\s*$", line[:start])
        if mathlike(m[0].rstrip(".,;:") or m[0]) and not article:
            if found and not line[found[-1][1] : start].strip() and "  " not in line[found[-1][1] : start]:
                found[-1] = (found[-1][0], stop)
            else:
                found.append((start, stop))
    return found


def words(text: str) -> str:
    """The words between parts of a displayed formula; two blanks or more are a gap."""
    if not text.strip():
        return r"\qquad " if len(text) > 1 else r"\ " if text else ""
    before, after = (r"\qquad " if side else "" for side in (text.startswith("  "), text.endswith("  ")))
    return rf"{before}\text{{ {text.strip()} }}{after}"
