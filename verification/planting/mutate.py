"""Mutations that nobody chose: ``python -m verification mutate --draw 200 --seed N``.

A mutation is one small change anywhere in ``pmp_ref``: an operator, a comparison, a constant, two exchanged arguments
or branches, a statement left out. Kinds are drawn alike, then a place of that kind. Each is made in a copy of the
checkout and judged there: first by the claims in their micro profile, then by the tests of the module. A mutation
*lives* if all of it passes. What lived is to be read: it is equivalent, or shows a place that nobody looks at.

Verdicts are added to ``reports/mutations-SEED.jsonl`` one by one, and a second call goes on where the first stopped.
Left out are type annotations, docstrings, the texts of errors, and modules whose library is not installed.
"""

from __future__ import annotations

import ast
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import deepcopy
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
NEEDS = {
    "pmp_ref/kernels/cuda/": "cupy",
    "pmp_ref/cupy_kernels.py": "cupy",
    "pmp_ref/kernels/ranks.py": "mpi4py",
    "pmp_ref/app/ranks.py": "mpi4py",
    "pmp_ref/interop/onnx": "onnxruntime",
    "pmp_ref/interop/torch": "torch",
    "pmp_ref/interop/assembly.py": "onnxruntime",
    "pmp_ref/estimator.py": "sklearn",
}
NO_CLAIMS = ("pmp_ref/app/", "pmp_ref/compact/", "pmp_ref/data/", "pmp_ref/interop/")  # tests alone speak of these
# Tests of the claims, of documentation and of programs around the package: they say nothing about a formula in it.
OTHER_TESTS = ("verification", "docs", "experiments", "gpu", "cuda", "performance", "backend_docs", "strategies")
MOST_TESTS = 6  # files for a module
CLAIMS_LIMIT, TESTS_LIMIT = 300, 1800  # seconds; what takes longer does not end


def exchanged(pairs: str) -> dict[type[ast.AST], type[ast.AST]]:
    """Node of the syntax tree → node that takes its place."""
    return {getattr(ast, a): getattr(ast, b) for a, b in (pair.split() for pair in pairs.split(","))}


OPERATORS = exchanged(
    "Add Sub, Sub Add, Mult Div, Div Mult, FloorDiv Div, Pow Mult, Mod Add, USub UAdd, Invert UAdd, "
    "BitAnd BitOr, BitOr BitAnd, And Or, Or And"
)
COMPARISONS = exchanged("Lt LtE, LtE Lt, Gt GtE, GtE Gt, Eq NotEq, NotEq Eq, Is IsNot, IsNot Is, In NotIn, NotIn In")


@dataclass(frozen=True)
class Mutation:
    """One change: ``before`` at ``start`` … ``end`` (bytes of the file) becomes ``after``."""

    kind: str
    path: str
    line: int
    start: int
    end: int
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}  {shown(self.before)}  →  {shown(self.after)}"

    def applied(self, source: bytes) -> bytes:
        """The source with the change made."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def shown(text: str) -> str:
    """A piece of source in one line."""
    line = " ".join(text.split())
    return line if len(line) <= 90 else f"{line[:87]}…"


# --- what can be changed ----------------------------------------------------------------------------------------------


def variants(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """(kind, another node in place of this one)."""
    new: Any = deepcopy(node)
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp | ast.AugAssign) and type(node.op) in OPERATORS:
        new.op = OPERATORS[type(node.op)]()
        yield "operator", new
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "operator", node.operand
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARISONS:
        new.ops[0] = COMPARISONS[type(node.ops[0])]()
        yield "comparison", new
    elif isinstance(node, ast.Constant) and type(node.value) in (bool, int, float):
        value: Any = node.value
        new.value = not value if isinstance(value, bool) else value + 1 if isinstance(value, int) else value * 2 + 0.5
        yield "constant", new
    elif isinstance(node, ast.IfExp):
        new.body, new.orelse = new.orelse, new.body
        yield "exchange", new
    elif isinstance(node, ast.Call) and len(node.args) > 1 and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        if not any(isinstance(a, ast.Starred) for a in node.args[:2]):
            new.args[0], new.args[1] = new.args[1], new.args[0]
            yield "exchange", new
    if isinstance(node, ast.Expr | ast.AugAssign | ast.If) or (
        isinstance(node, ast.Assign) and not isinstance(node.targets[0], ast.Name | ast.Tuple)
    ):
        yield "statement", ast.Pass()


def sites(path: str, source: bytes) -> list[Mutation]:
    """All mutations of a file, in the order of its text."""
    text = source.decode()
    starts = [0]
    for line in source.split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    found = []
    for node in relevant(ast.parse(text)):
        for kind, new in variants(node):
            start = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            after = ast.unparse(ast.fix_missing_locations(new))
            after = after if isinstance(node, ast.stmt) else f"({after})"
            found.append(Mutation(kind, path, node.lineno, start, end, source[start:end].decode(), after))
    return found


def relevant(node: ast.AST) -> Iterator[Any]:
    """The nodes below that compute something: no docstrings, annotations, texts, error messages."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            is_text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if not isinstance(child, ast.AST) or isinstance(child, ast.Raise | ast.JoinedStr) or is_text:
                continue
            if hasattr(child, "lineno"):
                yield child
            yield from relevant(child)


def draw(count: int, seed: int) -> list[Mutation]:
    """So many mutations, different ones: a kind, then a place."""
    by_kind: dict[str, list[Mutation]] = {}
    absent = tuple(path for path, library in NEEDS.items() if find_spec(library) is None)
    for file in sorted((ROOT / "pmp_ref").rglob("*.py")):
        path = file.relative_to(ROOT).as_posix()
        if not path.startswith(absent):
            for mutation in sites(path, file.read_bytes()):
                by_kind.setdefault(mutation.kind, []).append(mutation)
    chance = random.Random(seed)
    for places in by_kind.values():
        chance.shuffle(places)
    kinds = sorted(by_kind)
    return [by_kind[chance.choice(kinds)].pop() for _ in range(count)]


# --- what becomes of them ---------------------------------------------------------------------------------------------


def tests_for(path: str) -> list[str]:
    """The tests of a module: files named for it, and those that name most of what it defines or the module itself."""
    stem, module = Path(path).stem, path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined = {name for name in defined if not name.startswith("__")}
    found = []
    for file in sorted((ROOT / "tests").glob("test_*.py")):
        if not file.stem.removeprefix("test_").startswith(OTHER_TESTS):
            text = file.read_text(encoding="utf-8")
            named = len(defined & set(re.findall(r"\w+", text))) + 5 * (module in text) + 20 * (stem in file.stem)
            named += 2 * any(f"_{room}_" in file.stem for room in module.split(".")[1:-1])
            found.append((-named, len(text), f"tests/{file.name}"))
    return [name for _, _, name in sorted(found)[:MOST_TESTS]]


CLAIMS_HOLD = """
import sys
from threadpoolctl import threadpool_limits
from verification.claim import Context, evaluate
from verification.runner import load_all
threadpool_limits(1)
for tag, claim in load_all().items():
    outcome = evaluate(claim, Context(profile="micro", tag=tag, stop_at_failure=True))
    if not outcome.holds:
        sys.exit(f"claim {tag}")
"""


def judge(mutation: Mutation, tree: Path) -> str:
    """What kills the mutation, or ""; ``tree`` is a copy of the checkout.

    A test that fails without the mutation too (for want of a library, or of time) kills nothing, and is left out.
    """
    file = tree / mutation.path
    original = file.read_bytes()
    pytest = ["-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    left_out: list[str] = []
    try:
        file.write_bytes(mutation.applied(original))
        if not mutation.path.startswith(NO_CLAIMS):
            if found := ended(tree, ["-c", CLAIMS_HOLD], CLAIMS_LIMIT, lambda lines: lines[-1]):
                return found
        while True:
            found = ended(tree, [*pytest, *left_out, *tests_for(mutation.path)], TESTS_LIMIT, failed_test)
            if not found.startswith(("FAILED", "ERROR")):
                return found
            test = found.split(" ", 1)[1]
            file.write_bytes(original)
            if not ended(tree, [*pytest, test], TESTS_LIMIT, failed_test):
                return found
            file.write_bytes(mutation.applied(original))
            left_out += ["--deselect", test]
    finally:
        file.write_bytes(original)


def failed_test(lines: list[str]) -> str:
    """The test that pytest says failed."""
    return next((line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))), lines[-1])


def ended(tree: Path, words: list[str], limit: int, why: Callable[[list[str]], str]) -> str:
    """ "" if Python ends with 0 on these words in the tree, else why not."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OPENBLAS_NUM_THREADS": "1", "CI": "1"}
    command = [sys.executable, *words]
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"no end within {limit} s"
    lines = (done.stdout + done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
    return why(lines) if done.returncode else ""


def run(count: int, seed: int, jobs: int) -> int:
    """Draw, judge, print; the number that lived."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it, and so do its tests
    store = ROOT / "reports" / f"mutations-{seed}.jsonl"
    store.parent.mkdir(exist_ok=True)
    known = [json.loads(line) for line in store.read_text("utf-8").splitlines()] if store.exists() else []
    verdicts = {Mutation(**entry["mutation"]): entry["killed by"] for entry in known}
    drawn = draw(count, seed)
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(jobs) as pool:
        trees: SimpleQueue[Path] = SimpleQueue()
        leave = shutil.ignore_patterns(".*", "runs", "reports", "__pycache__", "*.egg-info", "build", "dist")
        for job in range(jobs):
            trees.put(Path(shutil.copytree(ROOT, Path(place) / str(job), ignore=leave)))

        def one(mutation: Mutation) -> str:
            tree = trees.get()
            try:
                return judge(mutation, tree)
            finally:
                trees.put(tree)

        waiting = {pool.submit(one, mutation): mutation for mutation in drawn if mutation not in verdicts}
        try:
            for future in as_completed(waiting):
                mutation, killer = waiting[future], future.result()
                verdicts[mutation] = killer
                entry = {"mutation": asdict(mutation), "killed by": killer}
                with store.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(entry, ensure_ascii=False) + "\n")
                print(f"{'killed' if killer else 'LIVED '}  {mutation}  {killer}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    lived = [mutation for mutation in drawn if not verdicts[mutation]]
    by_claims = sum(verdicts[mutation].startswith("claim ") for mutation in drawn)
    print(f"\n{count - len(lived)} of {count} killed, {by_claims} of them by claims; lived:")
    for mutation in lived:
        print(f"  {mutation}")
    return len(lived)
