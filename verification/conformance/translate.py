"""The second program, ``verification/plain.py``, on a problem that is described as in ``case.json``.

Only the description is read, so that no object of ``pmp_ref`` decides what the second program computes.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from verification import plain


def able(spec: dict[str, Any]) -> bool:
    """True if the second program has all that the description asks for."""
    flat = lambda nested: [part for stage in nested for part in stage]  # noqa: E731
    return (
        all(s["kind"] in STAGES for s in spec["stages"])
        and all(r["kind"] == "Polynomial" for r in flat(spec["regulariser"]))
        and all(a["kind"] == "Box" for a in flat(spec["admissible"]))
    )


def problem(spec: dict[str, Any]) -> plain.Problem:
    """The problem of ``case.json``; regulariser and box are the same in all controls."""
    shapes = [[tuple(shape) for shape in s["controls"].values()] for s in spec["stages"]]
    weights = [w for stage in spec["weights"] for w in stage]
    sizes = [math.prod(shape) for stage in shapes for shape in stage]
    (r,), (box,) = ({tuple(p.items()) for stage in spec[key] for p in stage} for key in ("regulariser", "admissible"))
    return plain.Problem(
        [STAGES[s["kind"]](s) for s in spec["stages"]],
        shapes,
        getattr(plain, LOSSES[spec["loss"]]),
        spec["rho"],
        np.repeat(weights, sizes),
        (dict(r)["a0"], dict(r)["a1"], dict(r)["a2"]),
        (float(dict(box)["lo"]), float(dict(box)["hi"])),
    )


def choices(spec: dict[str, Any], P: plain.Problem) -> dict[str, Any]:
    """The choices of ``plain.METHOD`` for the method of ``case.json``."""
    method = spec["method"]
    rule, test, metric = method["rule"], method["acceptance"], method["metric"]
    found = {key: value for key, value in rule.items() if key in plain.METHOD}
    if rule["kind"] == "ClassicRule":
        found |= {"theta": 0.0, "sigma_min": rule["sigma"]}
    elif rule["kind"] == "FixedRule":
        found |= {"theta": 0.0, "sigma": math.inf, "sigma_min": math.inf, "zeta": 1.0, "eps_min": 0.0}
    found |= {"tested": test["kind"] != "NoTest", "eta1": test.get("eta1", 0.0)}
    found["eta"] = test["eta"] if test["kind"] == "AbsoluteTest" else 0.0
    if metric["kind"] != "IdentityMetric":
        found |= {key: metric[key] for key in ("beta", "floor", "ceiling")}
        found["squares"] = np.square if metric["kind"] == "GradientMetric" else lambda g: means(P, g)
    if method["averaging"]:
        found |= {"average": method["averaging"]["beta"], "patience": method["averaging"]["patience"]}
    if method["ramp"]:
        found["ramp"] = (method["ramp"]["start"], method["ramp"]["stop"])
    return found | {key: method[key] for key in ("max_rejections", "eps_max")}


def means(P: plain.Problem, g: np.ndarray) -> np.ndarray:
    """For each entry of g the mean of the squares over its control."""
    return np.concatenate([np.full(a.size, np.mean(a**2)) for stage in P.by_stage(g) for a in stage])


def convolution(s: dict[str, Any]) -> plain.Stage:
    """A convolution; one with groups is made of convolutions of the second program, side by side."""
    one = plain.convolution(*(pair(s[key]) for key in ("stride", "padding", "dilation")))
    if s["groups"] == 1:
        return one
    cut = lambda a, axis: np.split(a, s["groups"], axis)  # noqa: E731

    def parts(x: np.ndarray, u: Any) -> Any:
        return zip(cut(x, 1), zip(*(cut(a, 0) for a in u), strict=True), strict=True)

    def switching(x: np.ndarray, u: Any, p: np.ndarray) -> tuple[np.ndarray, ...]:
        g = [one.switching(a, v, q) for (a, v), q in zip(parts(x, u), cut(p, 1), strict=True)]
        return tuple(np.concatenate(k) for k in zip(*g, strict=True))

    return plain.Stage(
        lambda x, u: np.concatenate([one.forward(a, v) for a, v in parts(x, u)], 1),
        lambda x, u, p: np.concatenate(
            [one.costate(a, v, q) for (a, v), q in zip(parts(x, u), cut(p, 1), strict=True)], 1
        ),
        switching,
    )


def average_pool(s: dict[str, Any]) -> plain.Stage:
    """Average pooling; without a stride it is the size."""
    return plain.average_pool(pair(s["size"]), pair(s["size"] if s["stride"] is None else s["stride"]))


def sigmoid(x: np.ndarray) -> np.ndarray:
    """1/(1 + exp(−x)), which the second program does without; of exp(−|x|), which does not overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


def pair(value: Any) -> tuple[int, int]:
    """An integer or a pair of them as a pair."""
    return tuple(value) if isinstance(value, list) else (value, value)


def pixels(s: dict[str, Any]) -> plain.Stage:
    """Bytes, standardised by channel; their costate is not needed."""
    mean, std = (np.reshape(s[key], (-1, *(1,) * (len(s["enters"]) - 1))) for key in ("mean", "std"))
    return plain.Stage(lambda x, u: (x / 255 - mean) / std, lambda x, u, p: p / 255 / std)


STAGES: dict[str, Any] = {
    "Dense": lambda s: plain.dense,
    "Tanh": lambda s: plain.tanh,
    "ReLU": lambda s: plain.relu,
    "Flatten": lambda s: plain.flatten,
    "Sigmoid": lambda s: plain.Stage(lambda x, u: sigmoid(x), lambda x, u, p: sigmoid(x) * (1 - sigmoid(x)) * p),
    "AveragePool": average_pool,
    "Pixels": pixels,
    "Convolution": convolution,
}
LOSSES = {"CrossEntropy": "cross_entropy", "SquaredLoss": "squared"}
