"""``pmp-ref find``: a family of networks, each begun with the weights of one before, and the one that fits a wish.

The first is dense (ρ = 0). Of the others each is a run to a wished size (T20), smaller and smaller, judged on held-out
training images. Every member is a run of its own, with its directory; the test images are looked at once, for the
network that is chosen. What comes next follows from the results so far, so a search that was killed goes on where it
was.
"""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass, replace
from pathlib import Path

from pmp_ref.accuracy import Accuracy
from pmp_ref.app import parse
from pmp_ref.app.build import build, split
from pmp_ref.app.conclude import test_accuracy
from pmp_ref.app.files import CONFIG, MODEL, SUMMARY, check_free, locked, new_directory, read_json, write_json
from pmp_ref.app.inspect import percent
from pmp_ref.app.options import Options, from_json, resolve, to_json
from pmp_ref.app.ranks import World
from pmp_ref.app.run import Manner, ended, resume, start_of, train
from pmp_ref.cardinality import AtMost
from pmp_ref.data import load
from pmp_ref.errors import InputError
from pmp_ref.files import write_atomically
from pmp_ref.kernels.blas import one_thread
from pmp_ref.model import read_model
from pmp_ref.result import Status

FIND, RESULT = "find.json", "result.json"
RUNS = Path("finds")
STEP = 10**-0.5  # a member has about a third of the weights of the one before
FIRST = 0.3  # of all weights, in the first member that is not dense
LEAST = 10  # weights; smaller networks are not tried
EPOCHS = "12"  # of each member, where nothing else is said
OWN = ("keep", "rho", "ramp", "test_images", "increment", "residual")  # options that find sets itself


@dataclass(frozen=True)
class Goal:
    """``within``: the smallest network whose held-out accuracy is at most so many points below the dense one's; or
    ``keep``: the network of a wished size. At most ``models`` members; ``refine`` of them between the last two."""

    within: float | None = 1.0
    keep: str | None = None
    models: int = 10
    refine: int = 2

    def __post_init__(self) -> None:
        if (self.within is None) == (self.keep is None):
            raise InputError("--within and --keep ask for two things; give one of them")


@dataclass(frozen=True)
class Member:
    """A network of the family that is trained."""

    name: str
    kept: int
    total: int
    correct: int
    images: int
    loss: float
    rho: float

    @property
    def held(self) -> Accuracy:
        """On the held-out images."""
        return Accuracy(self.correct, self.images)

    def good(self, dense: Member, points: float) -> bool:
        """Whether at most so many points are lost against the dense network."""
        return 100 * (dense.correct - self.correct) <= points * self.images + 1e-9


def following(goal: Goal, family: list[Member]) -> int | None:
    """The wished size of the next member, of the members so far (the first is dense); None: the search is done."""
    dense, total = family[0], family[0].total
    if len(family) >= goal.models:
        return None
    smallest = min(m.kept for m in family)
    if goal.keep is not None:
        k = AtMost(parse.wish(goal.keep)).at_end(total)
        if smallest <= k:
            return None
        return k if smallest * STEP < 2 * k else round(ladder(smallest, total))
    assert goal.within is not None
    good = min(m.kept for m in family if m.good(dense, goal.within))
    bad = [m.kept for m in family[1:] if m.kept < good]
    if not bad:
        wished = round(ladder(good, total))
        return wished if wished >= LEAST else None
    below = max(bad)
    between = round(math.sqrt(below * good))
    if sum(1 for m in family if m.name.endswith("r")) >= goal.refine or not below < between < good:
        return None
    return between


def ladder(kept: int, total: int) -> float:
    """The next size below ``kept`` on the way down."""
    return FIRST * total if kept == total else kept * STEP


def name_of(family: list[Member], wished: int) -> str:
    """The directory of the next member: its number and size; ``r`` marks one between two that are there."""
    between = any(m.kept < wished for m in family)
    return f"{len(family):02}-{wished}{'r' if between else ''}"


def begun_with(goal: Goal, family: list[Member], wished: int) -> Member:
    """The member whose weights the next one begins with: the smallest that is larger, and good where that is asked."""
    larger = [m for m in family if m.kept > wished]
    fit = [m for m in larger if goal.within is None or m.good(family[0], goal.within)]
    return min(fit or larger, key=lambda m: m.kept)


def chosen(goal: Goal, family: list[Member]) -> Member:
    """The smallest good network; of a wished size the most accurate that has it, and of those the smallest."""
    if goal.within is not None:
        return min((m for m in family if m.good(family[0], goal.within)), key=lambda m: m.kept)
    k = AtMost(parse.wish(str(goal.keep))).at_end(family[0].total)
    return max((m for m in family if m.kept <= k), key=lambda m: (m.correct, -m.kept))


def knee(family: list[Member]) -> Member | None:
    """Where the curve of accuracy over the logarithm of the size bends: its point farthest above the chord (Satopaa et
    al. 2011). None of fewer than three members, or where none lies above it."""
    points = sorted((m for m in family if m.kept > 0), key=lambda m: m.kept)
    if len(points) < 3 or points[-1].correct <= points[0].correct:
        return None
    low, high = points[0], points[-1]
    span = math.log(high.kept / low.kept)

    def above(m: Member) -> float:
        return (m.correct - low.correct) / (high.correct - low.correct) - math.log(m.kept / low.kept) / span

    best = max(points, key=above)
    return best if above(best) > 0 else None


# --- the search on disk -----------------------------------------------------------------------------------------------


def options_of(given: dict[str, str], wished: int | None, directory: Path | None) -> Options:
    """Of a member: the dense one, or one of a wished size that begins with the model in ``directory``."""
    own = {"epochs": EPOCHS} if not {"epochs", "steps"} & set(given) else {}
    if directory is None or wished is None:
        return resolve({**own, **given, "rho": "0", "ramp": "none", "test_images": "leave"})
    kept = {name: value for name, value in given.items() if name not in ("network", "activation", "pooling")}
    return resolve({**own, **kept, "start": str(directory / MODEL), "keep": str(wished), "test_images": "leave"})


def find(given: dict[str, str], goal: Goal, out: str | None, manner: Manner) -> int:
    """A new search; the exit code. Nothing is written unless the options and the data fit."""
    for name in OWN:
        if name in given:
            raise InputError(f"--{name.replace('_', '-')} with find, which sets it itself; leave it out")
    options = options_of(given, None, None)
    dataset = load(
        options.data,
        resize=None if options.resize is None else parse.size(options.resize),
        colour=options.colour,
    )
    if split(dataset, options.held_out)[1] is None:
        raise InputError("find judges on held-out images and there are none; give a --held-out above 0")
    if goal.keep is not None:
        parse.wish(goal.keep)
    directory = new_directory(out, RUNS)
    with locked(directory):
        check_free(directory)
        write_json(directory / FIND, {"format": 1, "goal": vars(goal), "given": given, "options": to_json(options)})
        return search(directory, given, goal, manner)


def go_on(directory: Path, manner: Manner) -> int:
    """Go on with a search in its directory; the exit code."""
    path = directory / FIND
    if not path.is_file():
        raise InputError(f"--resume {str(directory)!r}: no search there (no {FIND}); give a directory like finds/001")
    with locked(directory):
        stored = read_json(path)
        try:
            goal = Goal(**stored["goal"])
            given = {str(name): str(value) for name, value in stored["given"].items()}
            if stored["format"] != 1 or from_json(stored["options"]) != options_of(given, None, None):
                raise InputError("its options are those of another version")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{str(path)!r} does not fit this version of pmp_ref ({error}): start a new search"
            ) from None
        if (directory / RESULT).is_file():
            print(f"search: {directory}\nthe search is finished: nothing is left to do")
            return 0
        return search(directory, given, goal, manner)


def search(directory: Path, given: dict[str, str], goal: Goal, manner: Manner) -> int:
    """Train the family, member by member, choose, look at the test images once, write the results."""
    print(f"search: {directory}", flush=True)
    family: list[Member] = []
    wished: int | None = None
    while True:
        if not family:
            name, begin = "00-dense", None
        else:
            wished = following(goal, family)
            if wished is None:
                break
            name, begin = name_of(family, wished), directory / begun_with(goal, family, wished).name
        code = trained(directory / name, options_of(given, wished, begin), manner)
        if code:
            what = "interrupted" if code == 130 else f"the run {name} failed; its report is in {directory / name}"
            print(f"{what}\ngo on with: pmp-ref find --resume {directory}", flush=True)
            return code
        family.append(member(directory / name))
        print(row(family[-1], family[0]), flush=True)
    return conclude(directory, goal, family, manner)


def trained(directory: Path, options: Options, manner: Manner) -> int:
    """Train a member, go on with it, or leave it as it is if it has ended; the exit code."""
    if (directory / CONFIG).is_file():
        status = ended(directory)
        if status is not None:
            return 3 if status in (Status.AUGMENTATION_LIMIT, Status.NON_FINITE) else 0
    manner.say(f"{directory.name}: " + ("dense" if options.keep is None else f"at most {int(options.keep):,} weights"))
    with contextlib.redirect_stdout(io.StringIO()):
        if (directory / CONFIG).is_file():
            return resume(directory, replace(manner, figures=False))
        return train(options, str(directory), replace(manner, figures=False))


def member(directory: Path) -> Member:
    """The member that was trained in a directory, from its summary. InputError if that is damaged."""
    s = read_json(directory / SUMMARY)
    try:
        images = int(s["held_out_images"])
        correct = round(float(s["held_out_accuracy"]) * images)
        kept, total = int(s["kept_weights"]), int(s["total_weights"])
        return Member(directory.name, kept, total, correct, images, float(s["train_loss"]), float(s["rho"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"the results in {str(directory)!r} are damaged ({type(error).__name__}: {error}): restore them, "
            f"or delete that directory and those after it, and go on with --resume {str(directory.parent)!r}"
        ) from None


def row(m: Member, dense: Member) -> str:
    """A member in one line."""
    low, high = (100 * bound for bound in m.held.interval())
    text = (
        f"{m.name}: {m.kept:,} of {m.total:,} weights ({100 * m.kept / m.total:.3g} %), held out {percent(m.held.part)}"
        f" (95 %: {low:.1f} to {high:.1f})"
    )
    if m is dense:
        return text
    lost = 100 * (dense.correct - m.correct) / m.images
    return f"{text}, {abs(lost):.1f} points {'above' if lost < 0 else 'below'} the dense one"


def conclude(directory: Path, goal: Goal, family: list[Member], manner: Manner) -> int:
    """Choose, look at the test images once, write ``model.npz``, report and last ``result.json``."""
    best, bend = chosen(goal, family), knee(family)
    place = directory / best.name
    options = from_json(read_json(place / CONFIG)["options"])
    with one_thread():
        setup = build(options, manner.threads, start=start_of(options, place))
        test = test_accuracy(setup, read_model(place / MODEL).controls, World())
    result = {
        "format": 1,
        "goal": vars(goal),
        "chosen": best.name,
        "knee": None if bend is None else bend.name,
        "test_accuracy": None if isinstance(test, str) else test.part,
        "test_accuracy_interval": None if isinstance(test, str) else list(test.interval()),
        "test_images": 0 if isinstance(test, str) else test.images,
        "family": [vars(m) for m in family],
    }
    write_atomically(directory / MODEL, (place / MODEL).read_bytes())
    from pmp_ref.app.find_report import write_report  # not above: loads matplotlib

    write_report(directory, options, result, goal, family, manner.figures)
    write_json(directory / RESULT, result)
    print(answer(goal, best, family[0], test))
    if bend is not None:
        print(f"the curve bends at {bend.name}: {bend.kept:,} weights, held out {percent(bend.held.part)}")
    print(f"report: {directory / 'report.html'}\nmodel: {directory / MODEL}", flush=True)
    return 0


def points(number: float) -> str:
    """1 point, 0.5 points."""
    return f"{number:g} point{'' if number == 1 else 's'}"


def answer(goal: Goal, best: Member, dense: Member, test: Accuracy | str) -> str:
    """The result in a sentence."""
    if goal.within is not None:
        what = f"the smallest network within {points(goal.within)} of the dense one"
    else:
        what = f"the network of the wished size ({goal.keep})"
    text = (
        f"{what} is {best.name}: {best.kept:,} of {best.total:,} weights ({100 * best.kept / best.total:.3g} %), "
        f"held out {percent(best.held.part)}, the dense one {percent(dense.held.part)}"
    )
    if isinstance(test, str):
        return f"{text}; {test}"
    low, high = (100 * bound for bound in test.interval())
    return f"{text}; test accuracy {percent(test.part)} (95 %: {low:.2f} to {high:.2f}) on {test.images} images"
