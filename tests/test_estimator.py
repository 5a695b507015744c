"""The classifier for scikit-learn: scikit-learn's own checks, and that it is ``solve`` on standardised data."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed (extra sklearn, make optional)")

from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures
from sklearn.utils.estimator_checks import parametrize_with_checks

import pmp_ref as pr
from pmp_ref.estimator import SparseConvClassifier, default_network, statistics

PLAIN = SparseConvClassifier(random_state=0, epochs=3)


def flat(samples: int = 40, features: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Rows in other units, one of them constant, and three classes that can be told apart."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, samples)
    X = generator.standard_normal((samples, features)) + 2 * labels[:, None]
    X = X * [1e3, 1.0, 1e-4, 1.0, 1.0] + [5e4, 0.0, 1.0, 7.0, 0.0]
    X[:, 4] = 0.1
    return X, np.array(["moth", "ant", "bee"])[labels]


@pytest.mark.filterwarnings("ignore:.*:Warning")  # those checks give data that deserve the warnings they get
@parametrize_with_checks([SparseConvClassifier(epochs=20), SparseConvClassifier(epochs=20, batch_size=None)])
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def same(a: SparseConvClassifier, b: SparseConvClassifier) -> bool:
    pairs = zip(a.model_.controls, b.model_.controls, strict=True)
    return all(np.array_equal(u, v) for us, vs in pairs for u, v in zip(us, vs, strict=True))


@pytest.mark.parametrize("size", [8, None])
def test_fit_is_solve_on_standardised_data(size: int | None) -> None:
    """Bit for bit, with standardisation and numbering of the classes done by hand."""
    X, y = flat()
    ours = clone(PLAIN).set_params(batch_size=size, rho=2e-3).fit(X, y)
    names = ["ant", "bee", "moth"]
    assert ours.classes_.tolist() == names
    x = (X - np.append(X[:, :4].mean(axis=0), 0.1)) / np.append(X[:, :4].std(axis=0), 1.0)
    x[:, 4] = 0.0
    labels = np.array([names.index(name) for name in y])
    problem = pr.Problem(default_network((5,), 3), rho=2e-3)
    theirs = pr.solve(problem, x, labels, batch_size=size, epochs=3, seed=0)
    for us, vs in zip(ours.model_.controls, theirs.controls, strict=True):
        for u, v in zip(us, vs, strict=True):
            np.testing.assert_allclose(u, v, rtol=1e-9, atol=1e-12)
    assert (ours.nonzeros_, ours.entries_, ours.n_iter_) == (theirs.nonzeros, theirs.entries, 3)
    assert ours.J_ == pytest.approx(theirs.J, rel=1e-9) and ours.status_ is theirs.status
    scores = theirs.model.outputs(x)
    e = np.exp(scores)
    np.testing.assert_allclose(ours.predict_proba(X), e / e.sum(axis=1, keepdims=True), rtol=1e-7)
    assert ours.predict(X).tolist() == [names[k] for k in scores.argmax(axis=1)]
    assert ours.certify(X, y).eps_star == pytest.approx(pr.certify(problem, theirs.controls, x, labels).eps_star)


def test_it_learns_and_prunes() -> None:
    X, y = load_digits(return_X_y=True)
    for shape in (None, (8, 8)):
        c = SparseConvClassifier(random_state=0, image_shape=shape, epochs=8).fit(X[:1200], y[:1200])
        assert c.score(X[1200:], y[1200:]) > 0.85 and c.nonzeros_ < c.entries_


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 5), (1, 1, 30)])
def test_rows_as_images(shape: tuple[int, ...]) -> None:
    """Row by row, channel by channel; standardised by channel."""
    generator = np.random.default_rng(1)
    X, y = generator.uniform(3, 5, (20, 30)), generator.integers(0, 2, 20)
    c = clone(PLAIN).set_params(image_shape=shape).fit(X, y)
    images = X.reshape(20, *((1, *shape) if len(shape) == 2 else shape))
    assert c.model_.network.input_shape == images.shape[1:]
    mean = images.mean(axis=(0, 2, 3), keepdims=True)
    x = (images - mean) / images.std(axis=(0, 2, 3), keepdims=True)
    np.testing.assert_allclose(c.predict_proba(X), pr.loss.softmax(c.model_.outputs(x)), rtol=1e-6)


def test_networks_by_name_by_function_and_as_they_are() -> None:
    generator = np.random.default_rng(2)
    X, y = generator.random((12, 192)), generator.integers(0, 2, 12)
    a = clone(PLAIN).set_params(network="lenet5", image_shape=(12, 16), epochs=1).fit(X, y)
    b = clone(a).set_params(network=pr.lenet5((1, 12, 16), 2), image_shape=None).fit(X, y)
    c = clone(a).set_params(network=pr.lenet5).fit(X, y)
    assert a.model_.network == b.model_.network == c.model_.network == pr.lenet5((1, 12, 16), 2)
    assert same(a, b) and same(b, c)


def test_floats_keep_their_precision() -> None:
    X, y = flat()
    for dtype, kept in (("float32", "float32"), ("float64", "float64"), ("int64", "float64")):
        c = clone(PLAIN).fit(X.astype(dtype), y)
        assert c.model_.dtype == kept and c.predict_proba(X).dtype == kept


def test_a_warm_start_goes_on() -> None:
    """From the controls found, at the full ρ, with the first standardisation; other fits begin anew."""
    X, y = flat()
    c = clone(PLAIN).set_params(warm_start=True, epochs=10).fit(X, y)
    mean, J = c.mean_, c.J_
    start = c.model_.controls
    c.set_params(epochs=1).fit(X[:30], y[:30])
    assert c.mean_ is mean
    x = ((X - c.mean_) / c.scale_)[:30]
    problem = pr.Problem(default_network((5,), 3), rho=1e-3)
    labels = np.searchsorted(c.classes_, y[:30])
    method = pr.Method.minibatch(ramp=None)
    theirs = pr.solve(problem, x, labels, controls=start, batch_size=30, epochs=1, method=method)
    assert c.J_ == theirs.J and c.records_[0].rho == 1e-3 and c.J_ < 2 * J
    with pytest.raises(ValueError, match="warm_start needs those of the last fit"):
        c.fit(X[y != "ant"], y[y != "ant"])
    with pytest.raises(ValueError, match="set warm_start=False"):
        clone(c).fit(X, y).set_params(network=pr.Network((pr.Dense(3),), (5,))).fit(X, y)
    cold = clone(PLAIN).fit(X, y)
    assert same(cold.fit(X, y), clone(PLAIN).fit(X, y))


def test_clones_and_pickles() -> None:
    X, y = flat()
    c = clone(PLAIN).set_params(regulariser=pr.L1(), method=pr.Method.minibatch(ramp=None)).fit(X, y)
    twin = clone(c)
    assert not hasattr(twin, "model_") and twin.get_params() == c.get_params() and same(twin.fit(X, y), c)
    again = pickle.loads(pickle.dumps(c))
    assert same(again, c) and again.predict(X).tolist() == c.predict(X).tolist() and again.status_ is c.status_


def test_pipeline_grid_search_and_cross_validation() -> None:
    X, y = load_iris(return_X_y=True)
    chain = make_pipeline(PolynomialFeatures(2), SparseConvClassifier(random_state=0, epochs=6))
    assert cross_val_score(chain, X, y, cv=3).min() > 0.85
    rhos, sizes = np.array([1e-3, 10.0]), np.array([25, 50])
    grid = {"sparseconvclassifier__rho": rhos, "sparseconvclassifier__batch_size": sizes}
    search = GridSearchCV(chain, grid, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_["sparseconvclassifier__rho"] == 1e-3 and search.score(X, y) > 0.85


def test_the_random_state() -> None:
    X, y = flat()
    fits = [clone(PLAIN).set_params(random_state=s).fit(X, y) for s in (1, 1, 2, np.random.RandomState(5))]
    assert same(fits[0], fits[1]) and not same(fits[0], fits[2]) and not same(fits[0], fits[3])
    assert same(fits[3], clone(PLAIN).set_params(random_state=np.random.RandomState(5)).fit(X, y))


def test_how_a_run_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the callback: as asked for. By Ctrl-C: with KeyboardInterrupt, and what was found is there. Else a warning."""
    X, y = flat()
    c = clone(PLAIN).set_params(callback=lambda it, record: it.epoch == 2, epochs=5).fit(X, y)
    assert c.status_ is pr.Status.INTERRUPTED and c.n_iter_ == 2

    def stop(it: pr.Iterate, record: pr.Record) -> None:
        if it.epoch == 1:
            raise KeyboardInterrupt

    c = clone(c).set_params(callback=stop)
    with pytest.raises(KeyboardInterrupt):
        c.fit(X, y)
    assert c.n_iter_ == 1 and len(c.predict(X)) == 40
    hasty = pr.Method.full_batch(rule=pr.FixedRule(1e-9), max_rejections=1)
    with pytest.warns(ConvergenceWarning, match=r"^(augmentation limit|non-finite): "):
        clone(PLAIN).set_params(method=hasty, batch_size=None).fit(X, y)


BYTES = pr.Pixels((0.5,) * 5, (0.25,) * 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_shape": (2, 2)}, r"image_shape is \(2, 2\), and X has 5 features"),
        ({"image_shape": (5,)}, r"image_shape is \(5,\)"),
        ({"network": "lenet"}, "unknown network 'lenet': did you mean 'lenet5'"),
        ({"network": "lenet5"}, "lenet5 takes images, and image_shape is None"),
        ({"network": pr.Network((pr.Dense(3),), (4,))}, "expected 5 features in all"),
        ({"network": pr.Network((pr.Dense(2),), (5,))}, r"and \(3,\), a score for each class"),
        ({"network": pr.Network((BYTES, pr.Dense(3)), (5,))}, "give the network without that stage"),
        ({"batch_size": "full"}, "batch_size is 'full'; expected an integer"),
        ({"epochs": 0}, "epochs is 0"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"rho": -1.0}, "rho is -1.0"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(pr.InputError, match=message):
        clone(PLAIN).set_params(**changes).fit(*flat())


def test_classes_never_seen_have_no_certificate() -> None:
    X, y = flat()
    with pytest.raises(ValueError, match="expected those of the fit"):
        clone(PLAIN).fit(X, y).certify(X, np.where(y == "ant", "wasp", y))


def test_statistics_of_constant_and_of_huge_features() -> None:
    X = np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 8.0]])
    mean, std = statistics(X, (2,))
    assert mean[0] == 0.1 and std[0] == 1.0 and mean[1] == 4.0
    assert np.array_equal(statistics(X, (1, 1, 2))[1], np.full(2, X.std()))
    with pytest.raises(pr.InputError, match="whose square overflows"):
        statistics(X * 1e300, (2,))
