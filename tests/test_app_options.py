"""Options: defaults, the readers' messages, ``config.json`` and back."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from pmp_ref.app import parse
from pmp_ref.app.build import build_method
from pmp_ref.app.main import train_parser
from pmp_ref.app.options import NO_TEST, Options, from_json, resolve, to_json
from pmp_ref.errors import InputError
from pmp_ref.metric import GradientMetric, IdentityMetric
from pmp_ref.regulariser import GroupL0, Polynomial

REQUIRED = (
    "data",
    "network",
    "activation",
    "regulariser",
    "rho",
    "ramp",
    "batch-size",
    "epochs",
    "steps",
    "rule",
    "acceptance",
    "metric",
    "dtype",
    "backend",
    "seed",
    "out",
    "resume",
)


def test_every_required_option_is_there() -> None:
    flags = {s for action in train_parser()._actions for s in action.option_strings}
    assert not {f"--{name}" for name in REQUIRED} - flags


def test_the_default_run_uses_mini_batches_with_all_that_they_need() -> None:
    method = build_method(resolve({}))
    assert isinstance(method.metric, GradientMetric) and method.averaging and method.ramp
    assert resolve({}).check_descent == "all"


def test_full_batch_has_constant_rho_and_neither_average_nor_metric() -> None:
    options = resolve({"batch_size": "full"})
    method = build_method(options)
    assert options.full_batch and isinstance(method.metric, IdentityMetric)
    assert method.averaging is None and method.ramp is None
    assert options.epochs is None and options.steps is not None


def test_a_given_limit_replaces_the_default_limit_of_the_other_kind() -> None:
    assert (resolve({"steps": "7"}).steps, resolve({"steps": "7"}).epochs) == (7, None)
    full = resolve({"epochs": "7", "batch_size": "full"})
    assert (full.steps, full.epochs) == (None, 7)
    both = resolve({"steps": "7", "epochs": "3"})
    assert (both.steps, both.epochs) == (7, 3)


@pytest.mark.parametrize(
    ("network", "activation", "pooling"),
    [
        ("lenet5", "tanh", "average"),
        ("lenet5-caffe", "relu", "max"),
        ("residual", "tanh", None),
    ],
)
def test_activation_and_pooling_follow_the_network(network: str, activation: str, pooling: str | None) -> None:
    options = resolve({"network": network})
    assert (options.activation, options.pooling) == (activation, pooling)


def test_only_a_run_without_test_is_marked() -> None:
    assert resolve({"acceptance": "none"}).notice == NO_TEST
    assert resolve({}).notice is None and resolve({"acceptance": "relative"}).notice is None


@pytest.mark.parametrize(
    ("text", "regulariser"),
    [
        ("l0", Polynomial(1.0)),
        ("l1+l2", Polynomial(0.0, 1.0, 1.0)),
        ("l0+0.25*l2", Polynomial(1.0, 0.0, 0.25)),
        ("group-l0", GroupL0()),
    ],
)
def test_regularisers_by_name_and_as_sums(text: str, regulariser: Any) -> None:
    assert parse.regulariser(text) == regulariser


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ({"network": "lenet"}, ["--network", "'lenet'", "did you mean 'lenet5'"]),
        ({"rule": "curvture"}, ["--rule", "did you mean 'curvature'"]),
        ({"metric": "x"}, ["--metric", "known: identity"]),
        ({"regulariser": "l3"}, ["--regulariser", "'l3'", "did you mean"]),
        ({"regulariser": "l0+l1/2"}, ["--regulariser", "'l1/2'", "one name"]),
        ({"rho": "much"}, ["--rho", "'much'", "finite number"]),
        ({"rho": "nan"}, ["--rho", "'nan'"]),
        ({"batch_size": "0"}, ["--batch-size", "'0'", "at least 1", "'full'"]),
        ({"batch_size": "1.5"}, ["--batch-size", "'1.5'"]),
        ({"epochs": "-1"}, ["--epochs", "'-1'"]),
        ({"ramp": "0.5"}, ["--ramp", "'0.5'", "start:stop", "'none'"]),
        ({"ramp": "0.6:0.5"}, ["--ramp", "'0.6:0.5'"]),
        ({"held_out": "1"}, ["--held-out", "'1'"]),
        ({"box": "-1"}, ["--box", "'-1'", "> 0"]),
        ({"eta": "0"}, ["--eta", "'0'"]),
        ({"seed": "-3"}, ["--seed", "'-3'"]),
        ({"layer_weights": "0:2"}, ["--layer-weights", "'0:2'", "stage=factor"]),
        ({"layer_weights": "0=-2"}, ["--layer-weights"]),
        ({"admissible": "1,1"}, ["--admissible", "two different"]),
        ({"theta": "2", "rule": "classic"}, ["--theta 2", "--rule classic", "leave --theta out"]),
        ({"growth": "2", "rule": "fixed"}, ["--growth 2", "--rule fixed"]),
        ({"pooling": "max", "network": "residual"}, ["--pooling max", "--network residual"]),
        ({"data": ""}, ["--data", "empty"]),
    ],
)
def test_bad_values_name_option_value_and_remedy(given: dict[str, str], parts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        resolve(given)
    assert all(part in str(caught.value) for part in parts), caught.value
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"batch_size": "full"},
        {"rule": "fixed"},
        {"rule": "classic", "sigma": "1.3"},
        {"network": "residual"},
        {"ramp": "none", "averaging": "none", "layer_weights": "0=0.5,3=2", "admissible": "-1,0,1", "box": "2"},
        {"check_descent": "5"},
        {"check_descent": "none"},
        {"epochs": "none", "residual": "1e-3"},
    ],
)
def test_options_survive_the_configuration_file(given: dict[str, str]) -> None:
    options = resolve(given)
    assert from_json(json.loads(json.dumps(to_json(options), allow_nan=False))) == options


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"rhoo": 1.0}, "did you mean 'rho'"),
        ({"rho": "0.1"}, "'rho'"),
        ({"rho": None}, "'rho'"),
        ({"batch_size": True}, "'batch_size'"),
        ({"network": "lenet"}, "--network"),
        ({"seed": 1.5}, "--seed"),
        ({"ramp": [0, 1]}, "'ramp'"),
        ({"data": {"a": 1}}, "'data'"),
    ],
)
def test_a_configuration_is_checked_like_a_command_line(change: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as caught:
        from_json(to_json(resolve({})) | change)
    assert part in str(caught.value)


def test_a_configuration_must_be_complete_and_an_object() -> None:
    stored = to_json(resolve({}))
    del stored["seed"]
    with pytest.raises(InputError, match="'seed' is missing"):
        from_json(stored)
    with pytest.raises(InputError, match="no JSON object"):
        from_json([1])


def test_every_option_has_help_and_a_metavar() -> None:
    for f in dataclasses.fields(Options):
        assert f.metadata["help"] and f.metadata["metavar"]
