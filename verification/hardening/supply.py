"""The package as others get it: ``make package`` and ``make lowest`` in Python, without a dependency of their own.

``package``: sdist from a copy of the sources, wheel from the unpacked sdist, the wheel into a fresh environment in a
path with a space and letters beyond ASCII, that place read-only, then a run, its resumption, the certificate and data
from there. ``lowest``: the lower bounds of pyproject.toml as exact versions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = "läufe und mehr"  # a space, a letter beyond ASCII
TOOLS = ("mypy", "ruff", "setuptools")  # they check the sources and do not meet the package at run time
SDIST = (
    "pyproject.toml",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "MANIFEST.in",
    "requirements.txt",
    "docs/requirements.txt",
    "docs/theory/setting.md",
    "docs/conf.py",
    "pmp_ref/py.typed",
    "pmp_ref/data/mnist_subset.npz",
    "tests/conftest.py",
    "tests/test_bsqh.py",
    "verification/__main__.py",
    "verification/hardening/__main__.py",
)
WHEEL = (
    "pmp_ref/bsqh.py",
    "pmp_ref/app/main.py",
    "pmp_ref/py.typed",
    "pmp_ref/data/mnist_subset.npz",
    "pmp_ref/data/mnist_subset.md",
)
OUTSIDE = """
import pathlib, sys
import numpy as np
import pmp_ref as pr
from pmp_ref.data import load, prepare
assert not {"matplotlib", "cupy"} & set(sys.modules), "importing pmp_ref loads a heavy library"
assert pathlib.Path(pr.__file__).is_relative_to(sys.prefix), pr.__file__
data = prepare(load(), np.float32)
x, y = data.train_images[::100], data.train_labels[::100]
problem = pr.Problem(pr.lenet5(), rho=1e-4)
solution = pr.solve(problem, x, y, steps=3)
assert len(solution.steps) == 3 and solution.steps[-1].J < solution.steps[0].J_before
images = np.arange(12 * 81).reshape(12, 9, 9).astype(np.uint8)
np.savez("own images.npz", train_images=images, train_labels=np.arange(12) % 3)
assert load("own images.npz").classes == 3
print("library:", solution.status, solution.steps[-1].J)
"""


def lowest(pyproject: str) -> list[str]:
    """``name==lower bound`` of every dependency and of what the tests need, but for `TOOLS`."""
    project = tomllib.loads(pyproject)["project"]
    pins = []
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        match = re.match(r"([A-Za-z0-9_.-]+)\s*>=\s*([0-9.]+)", requirement)
        if match is None:
            raise ValueError(f"{requirement!r} has no lower bound")
        if match[1] not in TOOLS:
            pins.append(f"{match[1]}=={match[2]}")
    return pins


def command(*arguments: str | Path, cwd: Path, **environment: str) -> str:
    """Output of a command; RuntimeError with its last lines if it fails."""
    hidden = {"PYTHONPATH", "PYTHONDONTWRITEBYTECODE"}  # as on another machine
    variables = {k: v for k, v in os.environ.items() if k not in hidden} | environment
    done = subprocess.run(
        [str(a) for a in arguments], cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))[:200]}: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def copy_sources(target: Path) -> None:
    """The files under version control, or all where there is no git, without what is built."""
    try:
        names = command("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    except (OSError, RuntimeError):
        shutil.copytree(
            ROOT, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "build", "dist", "runs", "_build")
        )
        return
    for name in names:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def build(place: Path) -> tuple[Path, Path]:
    """sdist from a copy of the sources, wheel from the sdist; both checked for what they must hold."""
    sources, unpacked, out = place / "sources", place / "unpacked", place / "dist"
    out.mkdir()
    copy_sources(sources)
    make = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
    command(sys.executable, "-c", make.format("sdist"), out, cwd=sources)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(unpacked, filter="data")
    (tree,) = unpacked.iterdir()
    missing(SDIST, {p.relative_to(tree).as_posix() for p in tree.rglob("*")}, sdist.name)
    command(sys.executable, "-c", make.format("wheel"), out, cwd=tree)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "pmp_ref").rglob("*.py")}
    missing([*WHEEL, *sorted(modules)], names, wheel.name)
    if strangers := [n for n in names if not n.startswith(("pmp_ref/", "pmp_ref-"))]:
        raise RuntimeError(f"{wheel.name} holds {strangers[:5]}")
    return sdist, wheel


def missing(needed: list[str] | tuple[str, ...], held: set[str], where: str) -> None:
    """RuntimeError that names what is not there."""
    if lacking := [name for name in needed if name not in held]:
        raise RuntimeError(f"{where} lacks {lacking}")


def read_only(place: Path) -> tuple[list[str], str]:
    """What to put before a command so that it finds ``place`` read-only, and in words how."""
    script = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"'
    prefix = ["unshare", "-rm", "sh", "-c", script, str(place)]
    try:
        command(*prefix, "true", cwd=place)
    except (OSError, RuntimeError):  # not Linux, or no namespaces for this user
        for path in (place, *place.rglob("*")):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & ~0o222)
        return [], "by permissions" if os.getuid() else "not at all (root heeds no permissions, and no namespaces here)"
    return prefix, "by a read-only mount"


def package(say: Callable[[str], None]) -> None:
    """All of it. Raises RuntimeError if something is missing or fails."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / PLACE
        place.mkdir()
        sdist, wheel = build(place)
        say(f"{sdist.name} ({sdist.stat().st_size:,} bytes), from it {wheel.name} ({wheel.stat().st_size:,} bytes)")
        environment, work = place / "venv", place / "work"
        work.mkdir()
        command(sys.executable, "-m", "venv", environment, cwd=place)
        python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
        command(python, "-m", "pip", "install", "-q", "--disable-pip-version-check", wheel, cwd=place)
        prefix, how = read_only(environment)
        say(f"installed into {environment.relative_to(temporary)}, which is read-only {how}")
        try:
            say(command(*prefix, python, "-W", "error", "-c", OUTSIDE, cwd=work).strip())
            train: list[str | Path] = [*prefix, python, "-W", "error", "-m", "pmp_ref", "train", "--quiet"]
            command(*train, "--steps", "5", "--check-descent", "none", "--out", "runs/mein lauf", cwd=work)
            command(*train, "--resume", "runs/mein lauf", cwd=work)
            text = command(*prefix, python, "-m", "pmp_ref", "inspect", "runs/mein lauf", cwd=work)
            if "certificate" not in text or not (work / "runs/mein lauf/report.html").is_file():
                raise RuntimeError(f"the run has no certificate or report: {text[-500:]}")
        finally:
            if not prefix:
                for path in (environment, *environment.rglob("*")):
                    if path.is_dir() and not path.is_symlink():
                        path.chmod(0o755)
        say("command: a run of five steps with figures and report, resumed and inspected")
