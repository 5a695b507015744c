"""What importing the package loads, and which module may import which."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import pmp_ref

PACKAGE = Path(pmp_ref.__file__).parent
SOURCES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
HEAVY = {"matplotlib", "cupy", "torch", "jax", "sklearn", "tqdm"}


def modules_loaded_by(code: str) -> set[str]:
    """Names in ``sys.modules`` after a fresh interpreter has run ``code`` beside the package."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout))


def imports(source: str, module: str, is_package: bool = False) -> set[str]:
    """Absolute names that ``source``, the text of ``module``, imports anywhere in it, also inside functions.

    ``from a import b`` counts as both ``a`` and ``a.b``, since b may be a module. A string handed to
    ``import_module`` or ``__import__`` counts too.
    """
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            parts = parts[: len(parts) - (node.level - 1)] if node.level else []
            base = ".".join([*parts, *([node.module] if node.module else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", None))
            if name in ("import_module", "__import__"):
                found.update(str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))
    return found


def imports_of(path: Path) -> set[str]:
    """Absolute names imported by the file at ``path``, relative to the package."""
    is_package = path.name == "__init__.py"
    parts = ["pmp_ref", *path.with_suffix("").parts]
    module = ".".join(parts[:-1] if is_package else parts)
    return imports((PACKAGE / path).read_text(encoding="utf-8"), module, is_package)


def within(names: set[str], package: str) -> set[str]:
    """Those of ``names`` that are ``package`` or lie inside it."""
    return {name for name in names if name == package or name.startswith(f"{package}.")}


def test_importing_the_package_loads_no_heavy_library() -> None:
    loaded = modules_loaded_by("import pmp_ref")
    assert "pmp_ref" in loaded
    assert not loaded & HEAVY


def test_importing_the_package_does_not_load_the_application() -> None:
    assert not within(modules_loaded_by("import pmp_ref"), "pmp_ref.app")


def test_a_heavy_import_would_be_seen() -> None:
    assert modules_loaded_by("import pmp_ref\nimport matplotlib.figure") & HEAVY == {"matplotlib"}


@pytest.mark.parametrize("name", pmp_ref.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert hasattr(pmp_ref, name)


def test_public_names_are_listed_once() -> None:
    assert len(set(pmp_ref.__all__)) == len(pmp_ref.__all__)


def test_only_arrays_imports_array_api_compat() -> None:
    importers = [path.as_posix() for path in SOURCES if within(imports_of(path), "array_api_compat")]
    assert importers == ["arrays.py"]


@pytest.mark.parametrize(
    "path",
    [path for path in SOURCES if path.parts[0] != "app" and path != Path("__main__.py")],
    ids=lambda path: path.as_posix(),
)
def test_core_does_not_import_the_application(path: Path) -> None:
    assert not within(imports_of(path), "pmp_ref.app")


DOORS = ("__init__.py", "__main__.py", "library.py", "model.py", "accuracy.py", "files.py", "watch.py", "estimator.py")
"""What users open: it brings method and wings together, and the method knows nothing of it."""

METHOD = [
    path
    for path in SOURCES
    if path.parts[0] in ("layers", "bounds") or (len(path.parts) == 1 and path.as_posix() not in DOORS)
]


@pytest.mark.parametrize("path", METHOD, ids=lambda path: path.as_posix())
def test_the_method_imports_no_wing_and_no_door(path: Path) -> None:
    """The boxes with full lines of docs/figures/architecture.svg import none of those with broken lines."""
    found = imports_of(path)
    doors = [f"pmp_ref.{Path(door).stem}" for door in DOORS[1:]]
    for outside in (
        "pmp_ref.app",
        "pmp_ref.kernels",
        "pmp_ref.compact",
        "pmp_ref.data",
        "pmp_ref.interop",
        "verification",
        *doors,
    ):
        assert not within(found, outside)
    assert not any(
        name.startswith("pmp_ref.") and name.count(".") == 1 and name[8:] in pmp_ref.__all__ for name in found
    )


def test_the_wings_are_there() -> None:
    """The names above are those of packages, and what imports one is seen."""
    for wing in ("app", "kernels", "compact", "interop", "../verification"):
        assert (PACKAGE / wing / "__init__.py").is_file()
    assert within(imports_of(Path("app/build.py")), "pmp_ref.kernels")
    assert within(imports_of(Path("library.py")), "pmp_ref.kernels")
    assert within(imports_of(Path("model.py")), "pmp_ref.compact")
    assert all((PACKAGE / door).is_file() for door in DOORS)
    assert within(imports_of(Path("app/compact.py")), "pmp_ref.compact")


@pytest.mark.parametrize(
    ("source", "module", "is_package"),
    [
        ("import pmp_ref.app.main", "pmp_ref.loss", False),
        ("from pmp_ref import app", "pmp_ref.loss", False),
        ("from pmp_ref.app import main", "pmp_ref.loss", False),
        ("from . import app", "pmp_ref.loss", False),
        ("from .app.main import main", "pmp_ref.loss", False),
        ("from . import app", "pmp_ref", True),
        ("from .. import app", "pmp_ref.layers", True),
        ("from ..app import main", "pmp_ref.layers.dense", False),
        ("def f():\n    from ..app import main", "pmp_ref.layers.dense", False),
        ("import importlib\nimportlib.import_module('pmp_ref.app')", "pmp_ref.loss", False),
    ],
)
def test_every_form_of_import_is_seen(source: str, module: str, is_package: bool) -> None:
    assert within(imports(source, module, is_package), "pmp_ref.app")


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from . import app", "pmp_ref.layers.dense"),  # pmp_ref.layers.app
        ("import pmp_ref.application", "pmp_ref.loss"),
        ("'pmp_ref.app'", "pmp_ref.loss"),
    ],
)
def test_no_other_import_is_taken_for_one(source: str, module: str) -> None:
    assert not within(imports(source, module), "pmp_ref.app")
