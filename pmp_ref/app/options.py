"""The options of a training run: one table of names, defaults, readers and help; ``config.json`` holds them resolved.

Defaults that differ between mini-batches and full batch stand side by side. An option that has no meaning for the
chosen rule is None; giving it is an error, so that no setting is ignored in silence.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, cast, get_args, get_type_hints

from pmp_ref.acceptance import ACCEPTANCES, AbsoluteTest, RelativeTest
from pmp_ref.app import parse
from pmp_ref.architectures import ARCHITECTURES
from pmp_ref.augmentation import RULES
from pmp_ref.data import DEFAULT, NAMES
from pmp_ref.data.pictures import COLOURS
from pmp_ref.errors import InputError, nearest
from pmp_ref.layers import ACTIVATIONS
from pmp_ref.method import Method
from pmp_ref.metric import METRICS
from pmp_ref.regulariser import REGULARISERS

MINI: Any = Method.minibatch()  # the numbers are those of the library; here they only get their names
FULL: Any = Method.full_batch()
UNSET = "by the other options"  # a default that resolve() finds
NO_TEST = "no acceptance test: descent not guaranteed"
RULE_OPTIONS = ("sigma", "zeta", "theta", "memory", "growth", "band", "fall")
_SHARED = object()


def option(default: Any, read: parse.Parse, help: str, full: Any = _SHARED, metavar: str = "X") -> Any:
    """A field: its default with mini-batches, its default with full batch if another, its reader, its help."""
    same = full is _SHARED
    return field(
        metadata={
            "default": default,
            "full": default if same else full,
            "read": read,
            "help": help,
            "metavar": metavar,
            "same": same,
        }
    )


def name_of(policy: Any, table: Mapping[str, type]) -> str:
    """The name under which the policy's class stands in a table."""
    return next(name for name, kind in table.items() if type(policy) is kind)


def names(table: Any) -> dict[str, Any]:
    """Reader and metavar of a name from a table."""
    return {"read": parse.choice(table), "metavar": "|".join(table)}


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that decides the numbers of a run."""

    data: str = option(
        DEFAULT,
        parse.text,
        f"images: {', '.join(NAMES)}; a directory with IDX or CIFAR-10 files, .npy files or a folder of "
        "pictures for each class; a .npz file with MedMNIST naming",
        metavar="NAME|DIR|FILE",
    )
    resize: str | None = option(
        None,
        parse.or_none(parse.kept_as_text(parse.size)),
        "bring pictures in folders to this size, rows × columns; their sides are stretched as needed",
        metavar="N|RxC",
    )
    colour: str | None = option(
        None, parse.or_none(parse.choice(COLOURS)), "bring pictures in folders to this", metavar="grey|rgb"
    )
    held_out: float = option(
        0.1,
        parse.within(0, 0.9),
        "part of the training images, of every class alike, kept out of training for the accuracy on the progress line",
        metavar="PART",
    )
    start: str | None = option(
        None,
        parse.or_none(parse.text),
        "begin with the network and the weights of this model: a model.npz, a run's directory or an ONNX file",
        metavar="MODEL|none",
    )
    network: str | None = option(
        "lenet5",
        **names(ARCHITECTURES),
        help="lenet5: 6-16-120-84; lenet5-caffe: 20-50-500; residual and resnet8 to resnet32: for colour images",
    )
    activation: str | None = option(
        UNSET, **names(ACTIVATIONS), help="activation of every layer (default: the network's own)"
    )
    pooling: str | None = option(UNSET, **names(("average", "max")), help="pooling (default: the network's own)")
    regulariser: str = option(
        "l0",
        parse.kept_as_text(parse.regulariser),
        "r: a name or a sum such as l0+0.1*l2",
        metavar="|".join(REGULARISERS),
    )
    rho: float = option(4e-3, parse.number, "weight ρ ≥ 0 of r, relative to the mean loss", full=1e-4)
    keep: str | None = option(
        None,
        parse.or_none(parse.kept_as_text(parse.wish)),
        "end with at most this part, or this number, of the kernel entries; ρ is steered, and --rho is only a guess of "
        "its last value",
        metavar="P%|N|none",
    )
    ramp: str | None = option(
        f"{MINI.ramp.start:g}:{MINI.ramp.stop:g}",
        parse.or_none(parse.kept_as_text(parse.pair)),
        "ρ rises linearly from 0 between these parts of the run; none: constant ρ",
        None,
        "START:STOP|none",
    )
    penalise: str = option(
        "kernels", **names(("kernels", "all")), help="controls that r counts: kernels, or biases too"
    )
    layer_weights: str | None = option(
        None,
        parse.or_none(parse.kept_as_text(parse.factors)),
        "factors on ρ by stage, e.g. 0=0.5,10=2 (stage numbers: inspect)",
        metavar="L=X,…|none",
    )
    admissible: str = option(
        "line",
        parse.kept_as_text(parse.admissible),
        "values a kernel entry may take: line, R for [−R, R], lo:hi, or a list v,v,… (write --admissible=-1,0,1)",
        metavar="line|R|LO:HI|V,V,…",
    )
    box: float | None = option(
        None, parse.or_none(parse.positive), "bound on every control, biases too: |u| ≤ R", metavar="R|none"
    )
    batch_size: int | str = option(
        64,
        parse.either("full", parse.whole(1), "full"),
        "images in a batch; full: all of them in every step",
        "full",
        "N|full",
    )
    shift: int = option(
        0,
        parse.whole(0),
        "move every image by up to N pixels each way, at random, anew in every epoch; what comes in is black",
        metavar="N",
    )
    flip: str = option(
        "none", **names(("horizontal", "none")), help="mirror every image left to right with probability 1/2"
    )
    epochs: int | None = option(
        24,
        parse.or_none(parse.whole(0)),
        "passes over the data (no limit of its own when --steps is given)",
        None,
        "N|none",
    )
    steps: int | None = option(None, parse.or_none(parse.whole(0)), "accepted steps", 200, "N|none")
    increment: float = option(0.0, parse.number, "κ: stop once τ = ‖w − u‖² < κ; 0: off")
    residual: float = option(0.0, parse.number, "stop once 2ε‖w − u‖ is at most this; 0: off")
    rule: str = option(name_of(MINI.rule, RULES), **names(RULES), help="how ε follows rejections and acceptances")
    eps0: float = option(MINI.rule.eps0, parse.number, "first ε > 0")
    sigma: float | None = option(
        UNSET, parse.or_none(parse.number), "σ > 1: growth of ε (curvature: where the estimate is lost in rounding)"
    )
    zeta: float | None = option(UNSET, parse.or_none(parse.number), "ζ in (0, 1]: least factor on ε after acceptance")
    theta: float | None = option(
        MINI.rule.theta, parse.or_none(parse.number), "curvature: factor on the estimate", FULL.rule.theta
    )
    memory: float | None = option(
        MINI.rule.memory,
        parse.or_none(parse.within(0, 1)),
        "curvature: weight of the past in the smoothed estimate",
        FULL.rule.memory,
    )
    growth: float | None = option(
        MINI.rule.growth,
        parse.or_none(parse.number),
        "curvature: θ grows by this factor over the second half of the run, 1/θ falls linearly",
        FULL.rule.growth,
    )
    band: float | None = option(
        MINI.rule.band,
        parse.or_none(parse.number),
        "curvature: where ρ > 0, ε stays between θ(Ĉ + η) and this times as much",
        FULL.rule.band,
    )
    fall: float | None = option(
        MINI.rule.fall,
        parse.or_none(parse.number),
        "curvature: where ρ > 0, the part of the run in which ε may come down by the factor e; 0: no such bound",
        FULL.rule.fall,
    )
    max_rejections: int = option(
        MINI.max_rejections, parse.whole(1), "rejections of one control before the run gives up", metavar="N"
    )
    acceptance: str = option(
        name_of(MINI.acceptance, ACCEPTANCES),
        **names(ACCEPTANCES),
        help="absolute: J(w) − J(u) ≤ −ητ; relative: J(u) − J(w) ≥ ηΣΔH; none: for comparison only",
    )
    eta: float = option(UNSET, parse.positive, "η of the acceptance test (default: 1e-6 absolute, 0.1 relative)")
    metric: str = option(
        name_of(MINI.metric, METRICS),
        **names(METRICS),
        help="norm of the augmentation",
        full=name_of(FULL.metric, METRICS),
    )
    averaging: float | None = option(
        MINI.averaging.beta,
        parse.or_none(parse.within(0, 1)),
        "memory of the averaged switching functions of mini-batches; none: the batch's own",
        None,
        "X|none",
    )
    dtype: str = option("float32", **names(("float32", "float64")), help="floating point type")
    backend: str = option("numpy", **names(("numpy", "cupy")), help="array library; cupy needs a CUDA device")
    sweep: str = option("fast", **names(("fast", "clear")), help="fast kernels, or the clear path")
    check_descent: int | str = option(
        UNSET,
        parse.either("all", parse.either("none", parse.whole(1), "none"), "all"),
        "evaluate J anew in float64 for all accepted steps, every N-th, or none "
        "(default: all on the bundled images with mini-batches, else every 20th)",
        metavar="all|N|none",
    )
    prove: int | str = option(
        "none",
        parse.either("all", parse.either("none", parse.whole(1), "none"), "all"),
        "prove all accepted steps in interval arithmetic, every N-th, or none, and write proof.json",
        metavar="all|N|none",
    )
    test_images: str = option(
        "look",
        **names(("look", "leave")),
        help="look at the test images once, at the end of the run, or leave them for a later choice between runs",
    )
    seed: int = option(0, parse.whole(0), "seed of initial controls and batches", metavar="N")

    @property
    def full_batch(self) -> bool:
        """True if every step uses all training images."""
        return self.batch_size == "full"

    @property
    def notice(self) -> str | None:
        """The mark of a run without acceptance test, for every output."""
        return NO_TEST if self.acceptance == "none" else None


_TYPES = get_type_hints(
    Options
)  # here, once: a text that stands for a type is compiled, which no reader of a file does


def flag(name: str) -> str:
    """``batch_size`` as it is typed: ``--batch-size``."""
    return "--" + name.replace("_", "-")


def default_text(f: dataclasses.Field[Any]) -> str:
    """The sentence on the default in ``--help``."""
    if f.metadata["default"] == UNSET:
        return ""
    shown = [str(f.metadata[key]).replace("None", "none") for key in ("default", "full")]
    if f.metadata["same"] or shown[0] == shown[1] or f.name == "batch_size":
        return f" (default: {shown[0]})"
    return f" (default: {shown[0]}; with full batch {shown[1]})"


def read(name: str, given: str) -> Any:
    """The value of one option; InputError names the option."""
    try:
        return next(f for f in fields(Options) if f.name == name).metadata["read"](given)
    except InputError as error:
        raise InputError(f"{flag(name)} {error}") from None


def resolve(given: dict[str, str]) -> Options:
    """Options from the texts of a command line; what is not given takes its default."""
    values = {name: read(name, value) for name, value in given.items()}
    full = values.get("batch_size") == "full"
    for f in fields(Options):
        values.setdefault(f.name, f.metadata["full" if full else "default"])
    if values["keep"] is not None:
        _follow_wish(values, given)
    limit = "epochs" if "epochs" in given else "steps" if "steps" in given else None
    if limit and not {"epochs", "steps"} <= set(given) and values[limit] is not None:
        values["steps" if limit == "epochs" else "epochs"] = None
    if os.path.sep in values["data"] or values["data"] not in NAMES:
        values["data"] = _absolute(values["data"])
    if values["start"] is None:
        _follow_network(values)
    else:
        _follow_start(values, given)
    _follow_rule(values, given)
    if values["eta"] == UNSET:
        values["eta"] = RelativeTest().eta1 if values["acceptance"] == "relative" else AbsoluteTest().eta
    if values["check_descent"] == UNSET:
        values["check_descent"] = "all" if values["data"] == DEFAULT and not full else 20
    return Options(**values)


def _absolute(data: str) -> str:
    """A path that is there, made absolute, so that the run can be resumed from another directory."""
    return os.path.abspath(data) if os.path.exists(data) else data


def _follow_network(values: dict[str, Any]) -> None:
    """Activation and pooling of the network unless given."""
    build: Any = ARCHITECTURES[values["network"]]
    parameters = inspect.signature(build).parameters
    if values["activation"] == UNSET:
        values["activation"] = parameters["activation_name"].default
    pool = parameters["pool"].default if "pool" in parameters else None
    if values["pooling"] == UNSET:
        values["pooling"] = pool
    elif pool is None and values["pooling"] is not None:
        raise InputError(
            f"--pooling {values['pooling']} with --network {values['network']}, which has one pooling of "
            "its own; leave --pooling out"
        )


def _follow_start(values: dict[str, Any], given: dict[str, str]) -> None:
    """No network by name beside a model that brings its own."""
    values["start"] = _absolute(values["start"])
    for name in ("network", "activation", "pooling"):
        if name in given:
            raise InputError(
                f"{flag(name)} {given[name]} with --start, whose model brings its own; leave {flag(name)} out"
            )
        values[name] = None


def _follow_wish(values: dict[str, Any], given: dict[str, str]) -> None:
    """No ramp, and no guess of ρ unless one is given."""
    for name in ("ramp", "increment", "residual"):
        if given.get(name, "none") not in ("none", "0"):
            raise InputError(
                f"{flag(name)} {given[name]} with --keep, which steers ρ to the end of the run; leave {flag(name)} out"
            )
    values["ramp"] = None
    values["rho"] = values["rho"] if "rho" in given else 0.0


def _follow_rule(values: dict[str, Any], given: dict[str, str]) -> None:
    """The rule's own defaults; None, and an error if given, for what it does not have."""
    own = {f.name: f.default for f in fields(cast("Any", RULES[values["rule"]]))}
    for name in RULE_OPTIONS:
        if name not in own:
            if name in given:
                raise InputError(
                    f"{flag(name)} {given[name]} with --rule {values['rule']}, which does not use it; "
                    f"leave {flag(name)} out"
                )
            values[name] = None
        elif values[name] in (UNSET, None):
            assert own[name] is not MISSING
            values[name] = own[name]


def to_json(options: Options) -> dict[str, Any]:
    """The options as they stand in ``config.json``."""
    return dataclasses.asdict(options)


def from_json(stored: Any) -> Options:
    """Options from ``config.json``, each value checked by its reader; InputError if one does not fit."""
    expected = {f.name for f in fields(Options)}
    if not isinstance(stored, dict):
        raise InputError("its options are no JSON object")
    usual = {"start": None, "keep": None, "test_images": "look", "shift": 0, "flip": "none"}  # what older versions had
    stored = usual | stored
    for name in stored:
        if name not in expected:
            raise InputError(f"unknown option {str(name)!r}: {nearest(name, expected)}")
    if missing := [name for name in expected if name not in stored]:
        raise InputError(f"the option {missing[0]!r} is missing")
    for name, value in stored.items():
        if value is None and type(None) in get_args(_TYPES[name]):
            continue
        if isinstance(value, bool) or not isinstance(value, int | float | str) or read(name, str(value)) != value:
            raise InputError(f"the option {name!r} is {value!r}, which the command line does not take")
    named = [stored[name] is not None for name in ("network", "activation")]
    if any(named) if stored["start"] is not None else not all(named):
        raise InputError("it names neither a network nor a start, or both")
    return Options(**stored)
