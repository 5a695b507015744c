"""What an experiment is: rows that say all that decides their numbers, a run of one row, figures of all rows."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar

from pmp_ref.app.figures import DARK, LIGHT, blank, style
from pmp_ref.errors import InputError

_SEED = re.compile(r"-seed\d+$")
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]{0,119}")


@dataclass(frozen=True)
class Row:
    """One row of an experiment's table.

    ``key`` is its name, unique in the experiment and fit for a file. ``settings`` is JSON and holds everything that
    decides the numbers: a stored row counts as done only while its settings are these. Raises InputError otherwise.
    """

    key: str
    settings: dict[str, Any]

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise InputError(f"row {self.key!r}; expected at most 120 letters, digits and . _ = - in its name")
        try:
            plain = json.loads(json.dumps(self.settings, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise InputError(f"settings of row {self.key!r} are no JSON: {error}") from None
        object.__setattr__(self, "settings", plain)  # tuples become lists here, once, so that comparison is exact


@dataclass(frozen=True)
class Context:
    """Where and how a row runs; nothing here may change its numbers.

    ``directory`` is the row's own scratch directory: what is left there after an interruption is there at the next
    attempt. ``threads`` None: as many as the kernels choose. ``progress`` shows a line.
    """

    directory: Path
    threads: int | None = None
    progress: Callable[[str], None] = lambda line: None


class Experiment(ABC):
    """A question, its rows, and what is drawn of them.

    The dictionaries given to :meth:`figures` and :meth:`table` are stored rows: ``key``, ``settings``, ``result``,
    ``seconds``, ``date``, ``versions``, ``machine``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]  # the question, one or two sentences
    columns: ClassVar[Mapping[str, str] | tuple[str, ...]]  # names of results or settings, and their headings

    @abstractmethod
    def rows(self, quick: bool) -> list[Row]:
        """All rows; ``quick``: a version on bundled data that takes a minute on one core."""

    @abstractmethod
    def run(self, row: Row, context: Context) -> dict[str, Any]:
        """The numbers of a row: flat JSON values, and lists under the key "curves"."""

    @abstractmethod
    def figures(self, results: list[dict[str, Any]]) -> dict[str, Any]:
        """What the finished rows show: name of a file → figure by :func:`new_figure`, in the colours "C0", "C1", …"""

    def command(self, row: Row) -> str:
        """The command that makes a row, for an experiment whose settings say whether it is ``quick``."""
        return f"python -m verification.experiments {self.name} {'--quick ' * row.settings['quick']}--rows {row.key}"

    def alt(self, figure: str) -> str:
        """A sentence that says what the figure of that name shows."""
        return f"{self.title}: {figure}"

    def table(self, results: list[dict[str, Any]]) -> tuple[Sequence[str], list[Sequence[Any]]]:
        """Headings and rows of the table on the results page; by default the seeds of a setting share a line."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for stored in results:
            groups.setdefault(_SEED.sub("", stored["key"]), []).append(stored)
        return list(self.columns.values() if isinstance(self.columns, Mapping) else self.columns), [
            [
                len(group) if name == "seed" else together([lookup(stored, name) for stored in group])
                for name in self.columns
            ]
            for group in groups.values()
        ]


def together(values: Sequence[Any]) -> Any:
    """One value for those of all seeds: itself if they agree, the median with smallest and largest, or all of them."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, bool) for value in values):
        return f"{sum(values)} of {len(values)}"
    numbers = [value for value in values if value is not None]
    if all(isinstance(value, int | float) for value in numbers):
        middle, low, high = (short(value) for value in (median(numbers), min(numbers), max(numbers)))
        text = middle if low == high else f"{middle} ({low}–{high})"
        return text if len(numbers) == len(values) else f"{text} in {len(numbers)} of {len(values)}"
    return ", ".join(dict.fromkeys(str(value) for value in values))


def lookup(stored: Mapping[str, Any], name: str) -> Any:
    """A column of a stored row: from its result, else its settings, else the row itself (key, seconds); else None."""
    for place in (stored["result"], stored["settings"], stored):
        if name in place:
            return place[name]
    return None


def short(value: float) -> str:
    """Three digits; all digits of a number from 1,000 to a million."""
    return f"{value:.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


# "C0" to "C3" tell curves apart, for colour-blind readers too: a test measures how far apart they are. "C4" is for what
# stands back, "C5" a deeper "C0".
COLOURS = {
    LIGHT: ("#1f5fa8", "#d0601c", "#1d9a78", "#b26df7", "#7a7f87", "#0b2f5c"),
    DARK: ("#4f9cf0", "#f2955c", "#7fe0bd", "#fbb6ef", "#9aa1ac", "#c9defa"),
}


def draw(experiment: Experiment, results: list[dict[str, Any]], directory: Path) -> list[Path]:
    """Write every figure of the experiment: NAME.png and NAME.svg on light paper, NAME-dark.png on dark."""
    import matplotlib
    from cycler import cycler

    paths = []
    for ink, colours in COLOURS.items():
        settings: Any = style(ink) | {"axes.prop_cycle": cycler(color=colours)}
        with matplotlib.rc_context(settings):
            for name, figure in experiment.figures(results).items():
                if ink is LIGHT:
                    paths += [save_png(figure, directory / f"{name}.png"), save_svg(figure, directory / f"{name}.svg")]
                else:
                    paths.append(save_png(figure, directory / f"{name}-dark.png"))
    return paths


def save_png(figure: Any, path: Path) -> Path:
    """Write a figure as PNG with a palette: a third of the size, no visible difference in a line drawing."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, bbox_inches="tight", metadata={"Software": None})
    with Image.open(path) as picture:
        small = picture.convert("RGB").quantize(128, dither=Image.Dither.NONE)
    small.save(path, optimize=True, dpi=(150, 150))
    return path


def save_svg(figure: Any, path: Path) -> Path:
    """Write a figure as SVG, equal bytes for equal figures.

    Letters are text, not outlines: a third of the size, and they can be searched and read aloud.
    """
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.stem, "svg.fonttype": "none"}):
        figure.savefig(path, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    return path


def new_figure(width: float = 6.4, height: float = 4.2, columns: int = 1, rows: int = 1, **options: Any) -> Any:
    """(figure, axes), without the global state of pyplot."""
    figure = blank(width, height)
    return figure, figure.subplots(rows, columns, **options)
