"""The command ``pmp-ref``: train, find, prove, inspect, certify, compact, predict, fetch.

Exit codes: 0, 1 unexpected, 2 bad input, 3 failed run, 130.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from pmp_ref.errors import InputError, close, nearest
from pmp_ref.files import OutputError

EXIT_CODES = """exit codes:
  0    converged, precision limit, iteration limit, control unchanged
  1    unexpected error        2    bad input
  3    augmentation limit, non-finite        130  interrupted (go on with --resume)"""

TRAIN_EXAMPLES = """examples:
  pmp-ref train                                        the default run: sparse LeNet-5 on bundled MNIST images
  pmp-ref train --keep 1%                              at most 1 % of the weights at the end; or --keep 5000
  pmp-ref train --batch-size full --steps 100          full batch: J never rises
  pmp-ref train --data mnist --network lenet5-caffe    after: pmp-ref fetch mnist
  pmp-ref train --data pictures --resize 28            a folder of pictures for each class
  pmp-ref train --start net.onnx --rho 1e-3            prune a network that was trained elsewhere
  pmp-ref train --resume runs/001                      go on with an interrupted run

The run's directory gets report.html (open it first), summary.json, history.csv, trials.csv, accuracy.csv, model.npz,
certificate.json, figures and checkpoint.npz.

"""

COMPACT_EXAMPLES = """examples:
  pmp-ref compact runs/001                             writes compact.npz and compact.json beside model.npz
  pmp-ref compact runs/001 --out small --onnx small/net.onnx

"""

CERTIFY_EXAMPLES = """examples:
  pmp-ref certify runs/001
  pmp-ref certify net.onnx --data mnist --rho 4e-3

"""

PREDICT_EXAMPLES = """examples:
  pmp-ref predict runs/001/compact.npz digit.png
  pmp-ref predict runs/001 own.npz --array test_images --json

"""


PROVE_EXAMPLES = """examples:
  pmp-ref prove runs/001                               all steps of a finished run
  pmp-ref train --prove all                            a run that proves its steps as it makes them

"""

FIND_EXAMPLES = """examples:
  pmp-ref find                                         the smallest network within one point of the dense one
  pmp-ref find --within 0.5 --data mnist --network lenet5-caffe
  pmp-ref find --keep 1% --epochs 24                   down to a wished size, and how accurate that is
  pmp-ref find --resume finds/001                      go on with a search that was interrupted

The search's directory gets report.html (open it first), curve.png, result.json, model.npz (the network chosen), and a
run's directory for every network that was trained.

"""

STEP_SIZES = ("--lr", "--learning-rate", "--learning_rate", "--step-size", "--step_size", "--stepsize")


class Parser(argparse.ArgumentParser):
    """argparse with errors of one line, raised as InputError."""

    def __init__(self, **words: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **words)

    def error(self, message: str) -> NoReturn:
        raise InputError(message)

    def read(self, arguments: Sequence[str]) -> Any:
        """The arguments; InputError, with the nearest name, for one that there is not."""
        found, unknown = self.parse_known_args(list(arguments))
        if unknown:
            self.refuse(unknown[0])
        return found

    def refuse(self, given: str) -> NoReturn:
        """InputError for an argument that there is not."""
        name = given.partition("=")[0]
        if name in STEP_SIZES and "--eps0" in self._option_string_actions:
            raise InputError(
                f"unknown option {given!r}; ε takes the place of a step size: steps have the size 1/(2ε), --eps0 "
                "sets the first ε, and --rule with its constants how ε goes on; see --help"
            )
        if not given.startswith("-"):
            raise InputError(f"unknown argument {given!r}; see --help")
        near = close(name, self._option_string_actions)
        raise InputError(f"unknown option {given!r}; {near}see --help")


def parser() -> Parser:
    """The parser of all commands."""
    result = Parser(
        prog="pmp-ref",
        description="Sparse convolutional networks, trained by the Pontryagin maximum principle.",
        epilog="start with:  pmp-ref train        then:  pmp-ref inspect runs/001\n\n" + EXIT_CODES,
    )
    result.add_argument("--version", action="store_true", help="print the version")
    result.add_argument(
        "command",
        nargs="?",
        help="train, find, prove, inspect, certify, compact, predict or fetch; --help after it tells more",
    )
    return result


def train_parser() -> Parser:
    """The parser of ``train``; its options come from the table in ``options.py``."""
    from pmp_ref.app.options import Options, default_text, flag

    result = Parser(
        prog="pmp-ref train",
        description="Train a network; each run gets a directory with all results.",
        epilog=TRAIN_EXAMPLES + EXIT_CODES,
    )
    result.add_argument("--out", metavar="DIR", help="the run's directory (default: runs/001, runs/002, …)")
    result.add_argument(
        "--resume",
        metavar="DIR",
        help="go on with the run in this directory, with its own settings; only --backend may be given, to move it",
    )
    for f in fields(Options):
        result.add_argument(
            flag(f.name), metavar=f.metadata["metavar"], help=(f.metadata["help"] + default_text(f)).replace("%", "%%")
        )
    result.add_argument("--threads", metavar="N", help="threads of the fast kernels; the numbers do not depend on it")
    result.add_argument(
        "--processes", metavar="N", help="MPI ranks on this machine (needs the extra mpi); they change no number either"
    )
    result.add_argument("--no-figures", action="store_true", help="draw no figures")
    _common(result)
    result.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return result


def find_parser() -> Parser:
    """The parser of ``find``: its own options, and those of ``train`` that it does not set itself."""
    from pmp_ref.app.find import EPOCHS, OWN
    from pmp_ref.app.options import Options, default_text, flag

    p = Parser(
        prog="pmp-ref find",
        description="Train a family of networks, each begun with the weights of a larger one, and find the smallest "
        "that is accurate enough, or the accuracy at a wished size. Judged on held-out images; the test images are "
        "looked at once.",
        epilog=FIND_EXAMPLES + EXIT_CODES,
    )
    p.add_argument("--within", metavar="POINTS", help="points of held-out accuracy that may be lost (default: 1)")
    p.add_argument("--keep", metavar="P%|N", help="a wished size instead, as of train".replace("%", "%%"))
    p.add_argument("--models", metavar="N", default="10", help="networks to train at most (default: 10)")
    p.add_argument(
        "--refine", metavar="N", default="2", help="of them between the smallest good one and the next (default: 2)"
    )
    p.add_argument("--out", metavar="DIR", help="the search's directory (default: finds/001, finds/002, …)")
    p.add_argument("--resume", metavar="DIR", help="go on with the search in this directory, with its own settings")
    for f in fields(Options):
        if f.name not in OWN and f.name != "prove":
            default = f" (default: {EPOCHS} for each)" if f.name == "epochs" else default_text(f)
            p.add_argument(
                flag(f.name), metavar=f.metadata["metavar"], help=(f.metadata["help"] + default).replace("%", "%%")
            )
    p.add_argument("--threads", metavar="N", help="threads of the fast kernels; the numbers do not depend on it")
    p.add_argument("--no-figures", action="store_true", help="draw no figure")
    _common(p)
    p.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return p


def find(arguments: Sequence[str]) -> int:
    """``pmp-ref find``."""
    from pmp_ref.app.options import Options, flag
    from pmp_ref.app.parse import positive

    a = find_parser().read(arguments)
    from pmp_ref.app import find as search
    from pmp_ref.app import ranks
    from pmp_ref.app.run import Manner

    if (place := ranks.started()) is not None and place[1] != 1:
        raise InputError("find runs in one process; leave mpiexec out")
    manner = Manner(a.quiet, not a.no_figures, None if a.threads is None else number_of("--threads", a.threads))
    given = {
        f.name: getattr(a, f.name) for f in fields(Options) if f.name != "keep" and getattr(a, f.name, None) is not None
    }
    if a.resume is not None:
        extra = next(iter(given), None) or next(
            (n for n in ("within", "keep", "out") if getattr(a, n) is not None), None
        )
        if extra is not None:
            raise InputError(f"--resume takes its settings from the search; leave {flag(extra)} out")
        return search.go_on(Path(a.resume), manner)
    try:
        within = None if a.keep is not None else 1.0
        within = within if a.within is None else positive(a.within)
    except InputError as error:
        raise InputError(f"--within {error}") from None
    goal = search.Goal(within, a.keep, number_of("--models", a.models), number_of("--refine", a.refine, 0))
    return search.find(given, goal, a.out, manner)


def number_of(option: str, given: str, least: int = 1) -> int:
    """A whole number, at least ``least``; InputError names the option."""
    from pmp_ref.app.parse import whole

    try:
        return int(whole(least)(given))
    except InputError as error:
        raise InputError(f"{option} {error}") from None


def _common(p: Parser) -> None:
    p.add_argument("--debug", action="store_true", help="on an unexpected error, print the traceback")


def train(arguments: Sequence[str]) -> int:
    """``pmp-ref train``."""
    from pmp_ref.app.options import Options, flag, read, resolve

    p = train_parser()
    if options := [a for a in arguments if a in ("-h", "--help")]:
        p.read(options)
    a = p.read(arguments)
    from pmp_ref.app import ranks
    from pmp_ref.app.run import Manner, resume
    from pmp_ref.app.run import train as run

    threads = None if a.threads is None else number_of("--threads", a.threads)
    processes = None if a.processes is None else number_of("--processes", a.processes)
    if processes is not None and ranks.started() is not None:
        raise InputError(f"--processes {processes} in a run that mpiexec has started: leave --processes out")
    if processes is not None and processes > 1:
        return ranks.launch(processes, without(arguments, "--processes"))
    manner = Manner(a.quiet, not a.no_figures, threads, ranks.world())
    given = {f.name: getattr(a, f.name) for f in fields(Options) if getattr(a, f.name) is not None}
    if a.resume is None:
        return run(resolve(given), a.out, manner)
    backend = given.pop("backend", None)
    if given or a.out is not None:
        extra = "--out" if a.out is not None else flag(next(iter(given)))
        raise InputError(f"--resume takes its settings from the run; leave {extra} out, or start a new run")
    return resume(Path(a.resume), manner, None if backend is None else read("backend", backend))


def without(arguments: Sequence[str], name: str) -> list[str]:
    """The arguments without an option and its value, given as one argument or as two."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != name and not argument.startswith(f"{name}="):
            kept.append(argument)
        skip = not skip and argument == name
    return kept


def inspect(arguments: Sequence[str]) -> int:
    """``pmp-ref inspect``."""
    p = Parser(
        prog="pmp-ref inspect",
        description="Print result, layer table and certificate of a run.",
        epilog="example:\n  pmp-ref inspect runs/001",
    )
    p.add_argument("run", metavar="RUN", help="a run's directory")
    _common(p)
    a = p.read(arguments)
    from pmp_ref.app.inspect import show

    print(show(Path(a.run)))
    return 0


def fetch(arguments: Sequence[str]) -> int:
    """``pmp-ref fetch``."""
    p = Parser(
        prog="pmp-ref fetch",
        description="Download a full data set, check it, keep it in the cache (the directory PMP_REF_DATA if set).",
        epilog="example:\n  pmp-ref fetch mnist",
    )
    p.add_argument("name", metavar="NAME", help="mnist or cifar10")
    _common(p)
    a = p.read(arguments)
    from pmp_ref.data.fetch import fetch as download

    print(download(a.name, progress=lambda sentence: print(sentence, file=sys.stderr, flush=True)))
    return 0


def compact_parser() -> Parser:
    """The parser of ``compact``."""
    p = Parser(
        prog="pmp-ref compact",
        description="Remove dead and unread filters and neurons from a run's network, "
        "check on data that its outputs stay the same, measure, and write compact.npz and compact.json.",
        epilog=COMPACT_EXAMPLES + EXIT_CODES,
    )
    p.add_argument("run", metavar="RUN", help="a run's directory")
    p.add_argument("--out", metavar="DIR", help="where to write (default: the run's directory)")
    p.add_argument("--data", metavar="NAME|DIR|FILE", help="images for the check (default: those of the run)")
    p.add_argument(
        "--form",
        metavar="auto|dense|sparse",
        default="auto",
        help="how kernels are multiplied; auto: the faster form of each stage, measured now (default: auto)",
    )
    p.add_argument(
        "--batch",
        metavar="N",
        default="32",
        help="images at a time for which auto chooses, 1 to 32; one image at a time is dense more often (default: 32)",
    )
    p.add_argument("--onnx", metavar="FILE", help="write an ONNX file too (needs the extra onnx)")
    p.add_argument("--json", action="store_true", help="print the report as JSON")
    _common(p)
    return p


def compact(arguments: Sequence[str]) -> int:
    """``pmp-ref compact``."""
    a = compact_parser().read(arguments)
    from pmp_ref.app.compact import Wish
    from pmp_ref.app.compact import main as run

    return run(Path(a.run), Wish(a.out, a.data, a.form, number_of("--batch", a.batch), a.onnx, a.json))


def predict_parser() -> Parser:
    """The parser of ``predict``."""
    p = Parser(
        prog="pmp-ref predict",
        description="Print class and probability of images. Nothing is resized, converted or inverted in silence.",
        epilog=PREDICT_EXAMPLES + EXIT_CODES,
    )
    p.add_argument(
        "model", metavar="MODEL", help="compact.npz, model.npz, or a run's directory (there compact.npz goes first)"
    )
    p.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="pictures (PNG, PGM, PPM, JPEG), arrays (.npy, .npz) or "
        "IDX files, of the size that the model was trained on",
    )
    p.add_argument("--array", metavar="NAME", help="the array of a .npz file, where it holds several")
    p.add_argument("--invert", action="store_true", help="exchange dark and bright: 255 − pixel")
    p.add_argument(
        "--fit", action="store_true", help="bring pictures to the size and the channels that the model takes"
    )
    p.add_argument("--json", action="store_true", help="print JSON, with the probabilities of all classes")
    _common(p)
    return p


def predict(arguments: Sequence[str]) -> int:
    """``pmp-ref predict``."""
    a = predict_parser().read(arguments)
    from pmp_ref.app.predict import main as run

    return run(Path(a.model), a.images, a.array, a.invert, a.fit, a.json)


def prove_parser() -> Parser:
    """The parser of ``prove``."""
    p = Parser(
        prog="pmp-ref prove",
        description="Replay a finished run bit for bit and prove its accepted steps in interval arithmetic; write "
        "proof.json and a section of report.html.",
        epilog=PROVE_EXAMPLES + EXIT_CODES.replace("3    ", "3    refuted, replay differs, "),
    )
    p.add_argument("run", metavar="RUN", help="a run's directory")
    p.add_argument("--every", metavar="N", default="1", help="prove every N-th accepted step (default: 1)")
    p.add_argument("--threads", metavar="N", help="threads; the numbers do not depend on it")
    p.add_argument("--no-figures", action="store_true", help="draw no figures")
    _common(p)
    p.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return p


def prove(arguments: Sequence[str]) -> int:
    """``pmp-ref prove``."""
    a = prove_parser().read(arguments)
    every = number_of("--every", a.every)
    threads = None if a.threads is None else number_of("--threads", a.threads)
    from pmp_ref.app.prove import prove as run
    from pmp_ref.app.run import Manner

    return run(Path(a.run), every, Manner(a.quiet, not a.no_figures, threads))


def certify_parser() -> Parser:
    """The parser of ``certify``."""
    from pmp_ref.data import DEFAULT

    p = Parser(
        prog="pmp-ref certify",
        description="Print how far a model is from the maximum principle, wherever it was trained: accuracy, the "
        "smallest augmentation ε*, the gaps, and which layer is farthest.",
        epilog=CERTIFY_EXAMPLES + EXIT_CODES,
    )
    p.add_argument("model", metavar="MODEL", help="a model.npz, a run's directory or an ONNX file")
    p.add_argument("--data", metavar="NAME|DIR|FILE", default=DEFAULT, help=f"images, as of train (default: {DEFAULT})")
    p.add_argument("--regulariser", metavar="R", default="l0", help="r, as of train (default: l0)")
    p.add_argument("--rho", metavar="X", default="1e-4", help="weight ρ ≥ 0 of r in kernels (default: 1e-4)")
    p.add_argument("--eps", metavar="X", help="ε of the gaps (default: ε*)")
    p.add_argument("--images", metavar="N", help="take the first N training images (default: all)")
    p.add_argument("--json", action="store_true", help="print JSON")
    _common(p)
    return p


def certify(arguments: Sequence[str]) -> int:
    """``pmp-ref certify``."""
    a = certify_parser().read(arguments)
    from pmp_ref.app.certify import Wish
    from pmp_ref.app.certify import main as run
    from pmp_ref.app.options import read
    from pmp_ref.app.parse import positive

    try:
        eps = None if a.eps is None else positive(a.eps)
    except InputError as error:
        raise InputError(f"--eps {error}") from None
    images = None if a.images is None else number_of("--images", a.images)
    wish = Wish(a.data, read("regulariser", a.regulariser), read("rho", a.rho), eps, images, a.json)
    return run(Path(a.model), wish)


COMMANDS = {
    "train": train,
    "find": find,
    "prove": prove,
    "inspect": inspect,
    "certify": certify,
    "compact": compact,
    "predict": predict,
    "fetch": fetch,
}


def dispatch(arguments: Sequence[str]) -> int:
    """Run a command; its exit code."""
    split = next((i for i, a in enumerate(arguments) if not a.startswith("-")), len(arguments))
    a: Any = parser().read(arguments[: split + 1])
    if a.version:
        import pmp_ref

        print(f"pmp_ref {pmp_ref.__version__}")
        return 0
    if a.command is None:
        parser().print_help()
        return 0
    if a.command not in COMMANDS:
        raise InputError(f"unknown command {a.command!r}: {nearest(a.command, COMMANDS)}")
    return COMMANDS[a.command](arguments[split + 1 :])


def any_encoding() -> None:
    """Let stdout write letters that its encoding lacks as stderr does: ε becomes \\u03b5."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: run a command, turn errors into one line and an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        any_encoding()
        return dispatch(given)
    except SystemExit as end:  # argparse after --help
        return int(end.code or 0)
    except KeyboardInterrupt:
        from pmp_ref.app import ranks

        if ranks.may_print():
            print("pmp-ref: interrupted", file=sys.stderr)
        ranks.end_others(130)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # else Python complains at exit about the pipe
        return 1
    except InputError as error:  # of several ranks all meet it
        from pmp_ref.app import ranks

        if ranks.may_print():
            print(f"pmp-ref: error: {one_line(error)}", file=sys.stderr)
        return 2
    except Exception as error:
        from pmp_ref.app import ranks

        if "--debug" in given:
            traceback.print_exc()
        if ranks.lost_another(error):  # the launcher says so, once; mpiexec has words of its own
            ranks.end_others(ranks.LOST)
            return ranks.LOST
        expected = isinstance(error, OutputError)
        name, hint = ("", "") if expected else (f"{type(error).__name__}: ", " (--debug shows where)")
        what = f"{ranks.here()}{'' if expected else 'unexpected '}error"
        print(f"pmp-ref: {what}: {name}{one_line(error)}{hint}", file=sys.stderr)
        ranks.end_others(1)
        return 1


def one_line(error: BaseException) -> str:
    """The message on one line."""
    return " ".join(str(error).split()) or "no message"
