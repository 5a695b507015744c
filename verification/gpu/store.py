"""The file of results: written whole and at once after each of them, and read again by the next call."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
# What a part's result depends on: a change there has it made again.
SOURCES = {
    "smoke": ("pmp_ref",),
    "tests": ("pmp_ref", "tests", "verification"),
    "claims": ("pmp_ref", "verification"),
    "training": ("pmp_ref", "verification/gpu/training.py"),
    "benchmark": ("pmp_ref", "verification/performance", "verification/gpu/measure.py", "verification/gpu/sides.py"),
    "profile": ("pmp_ref", "verification/performance", "verification/gpu/measure.py", "verification/gpu/profiling.py"),
}
KINDS = (".py", ".cu", ".cuh", ".cpp", ".h")


def code(part: str, root: Path = ROOT) -> str:
    """A short hash of the sources that a part depends on."""
    digest = hashlib.sha256()
    for place in SOURCES[part]:
        path = root / place
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.suffix in KINDS and file.is_file():
                digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def commit() -> str | None:
    """The commit that is checked out, marked where files differ from it; None without git."""
    try:
        found = [
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=20, check=True).stdout
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return found[0].strip() + (" with changes" if found[1].strip() else "")


class Store:
    """Results by part; rows of the benchmark and of the profile by name."""

    def __init__(self, path: Path, device: str, fresh: bool = False) -> None:
        """Reads what an earlier call left in ``path``, unless ``fresh``."""
        self.path, self.device = path, device
        self.codes: dict[str, str] = {}
        self.data: dict[str, Any] = {"about": {}, "left out": {}, "parts": {}, "rows": {}}
        if not fresh and path.exists():
            stored = json.loads(path.read_text(encoding="utf-8"))
            self.data["parts"], self.data["rows"] = stored.get("parts", {}), stored.get("rows", {})

    def mark(self, part: str) -> dict[str, str]:
        """Device and sources that a result belongs to."""
        if part not in self.codes:
            self.codes[part] = code(part)
        return {"device": self.device, "code": self.codes[part]}

    def known(self, part: str, name: str | None = None) -> dict[str, Any] | None:
        """The finished result of a part, or of one of its rows, from the same sources on the same device; else None."""
        found = self.data["parts"].get(part) if name is None else self.data["rows"].get(f"{part}: {name}")
        if found is None or not found.get("finished"):
            return None
        return found if all(found.get(key) == value for key, value in self.mark(part).items()) else None

    def put(self, part: str, result: dict[str, Any], name: str | None = None) -> None:
        """Store a result. One that is cut off carries ``finished`` false and is made again by the next call."""
        whole = {"finished": True, **result, **self.mark(part), "at": now()}
        if name is None:
            self.data["parts"][part] = whole
        else:
            self.data["rows"][f"{part}: {name}"] = whole
        self.write()

    def leave_out(self, name: str, reason: str) -> None:
        """Note what this call does not do."""
        self.data["left out"][name] = reason
        self.write()

    def about(self, **what: Any) -> None:
        """Note where and when the results were found."""
        self.data["about"] |= what
        self.write()

    def rows(self, part: str) -> dict[str, dict[str, Any]]:
        """The rows of a part that belong to these sources and this device."""
        start = f"{part}: "
        names = [key.removeprefix(start) for key in self.data["rows"] if key.startswith(start)]
        found = {name: self.known(part, name) for name in names}
        return {name: row for name, row in found.items() if row is not None}

    def write(self) -> None:
        """Write the file whole: the old one stays until the new one is there."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps(self.data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        os.replace(new, self.path)


def now() -> str:
    """Date and time."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
