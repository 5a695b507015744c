"""A classifier for scikit-learn: the network, its data and its run behind ``fit`` and ``predict``.

Not imported by ``import pmp_ref``; scikit-learn comes with the extra ``sklearn``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np

from pmp_ref.architectures import ARCHITECTURES
from pmp_ref.bsqh import Callback
from pmp_ref.certificate import Certificate
from pmp_ref.errors import InputError, nearest
from pmp_ref.iterate import Iterate
from pmp_ref.layers import AveragePool, Convolution, Dense, Flatten, Stage, Tanh
from pmp_ref.library import certify, solve
from pmp_ref.loss import softmax
from pmp_ref.method import Method
from pmp_ref.model import Model
from pmp_ref.network import Network
from pmp_ref.problem import Problem
from pmp_ref.regulariser import L0, Regulariser
from pmp_ref.result import Record, Status

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        f"pmp_ref.estimator needs scikit-learn ({error}); install it, as the extra sklearn does: "
        "pip install 'scikit-learn>=1.9,<2'"
    ) from error

Builder = Callable[[tuple[int, ...], int], Network]


def default_network(shape: tuple[int, ...], classes: int) -> Network:
    """The network for rows of features, (n,), or images, (C, H, W), where none was asked for.

    Features: 64 and 32 neurons. Images: 8 and 16 filters of 3×3, each followed by pooling where the image has two rows
    and columns left, and 64 neurons. Tanh everywhere, so the loss is analytic.
    """
    stages: list[Stage]
    if len(shape) == 1:
        stages = [Dense(64), Tanh(), Dense(32), Tanh()]
    else:
        stages, side = [], min(shape[1:])
        for filters in (8, 16):
            stages += [Convolution(filters, 3, padding=1), Tanh()]
            if side >= 2:
                stages.append(AveragePool(2))
                side //= 2
        stages += [Flatten(), Dense(64), Tanh()]
    return Network((*stages, Dense(classes)), shape)


class SparseConvClassifier(ClassifierMixin, BaseEstimator):
    """A sparse network as a scikit-learn classifier: minimises J = L + ρR by bSQH, see :func:`pmp_ref.library.solve`.

    X is (N, features), y holds classes of any labels. X is standardised inside, (x − mean)/deviation of the training
    data: feature by feature, or channel by channel where the network takes images; a constant one becomes 0. float32
    stays float32, everything else is computed in float64.

    ``network``: None for :func:`default_network`, a name (``"lenet5"``, ``"lenet5-caffe"``, ``"residual"``), a
    ``Network``, or a function of (input shape, classes) that makes one. ``image_shape``: (C, H, W), or (H, W) for one
    channel, where each row of X is an image, channel by channel and row by row; None where it is none. ``rho`` is
    relative to the mean loss. ``regulariser`` None: L0. ``batch_size`` above N takes N; None is full batch.
    ``random_state`` gives the controls and the order of the batches. ``method`` None: ``Method.minibatch()`` or
    ``Method.full_batch()``. ``callback(iterate, record)`` and ``progress`` as in ``solve``.

    With ``warm_start`` a further ``fit`` goes on from the controls that were found, with the same standardisation, and
    unless a method is given at the full ρ from its first step.

    After ``fit``: ``classes_``, ``model_`` (a :class:`pmp_ref.model.Model` of standardised data), ``mean_`` and
    ``scale_`` (of each feature), ``status_``, ``records_``, ``J_``, ``loss_``, ``nonzeros_`` of ``entries_`` kernel
    entries, ``n_iter_`` (epochs), ``n_features_in_``.

    Raises ValueError, of which InputError is one, for what does not fit. Warns with ConvergenceWarning where the run
    ended without success. Ctrl-C ends ``fit`` with KeyboardInterrupt; what was found until then is there.
    """

    classes_: np.ndarray
    model_: Model

    def __init__(
        self,
        network: Network | str | Builder | None = None,
        *,
        image_shape: tuple[int, ...] | None = None,
        rho: float = 1e-3,
        regulariser: Regulariser | None = None,
        epochs: int = 40,
        batch_size: int | None = 32,
        method: Method | None = None,
        random_state: Any = None,
        warm_start: bool = False,
        callback: Callback | None = None,
        progress: bool = False,
    ) -> None:
        self.network = network
        self.image_shape = image_shape
        self.rho = rho
        self.regulariser = regulariser
        self.epochs = epochs
        self.batch_size = batch_size
        self.method = method
        self.random_state = random_state
        self.warm_start = warm_start
        self.callback = callback
        self.progress = progress

    def fit(self, X: Any, y: Any) -> SparseConvClassifier:
        """Train on X (N, features) and y (N,); returns the classifier itself."""
        again = self.warm_start and hasattr(self, "model_")
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=not again)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if again and not np.array_equal(classes, self.classes_):
            raise ValueError(f"y has the classes {classes}; warm_start needs those of the last fit, {self.classes_}")
        network = self._network(X.shape[1], len(classes))
        if again and network != self.model_.network:
            raise ValueError("the network is not that of the last fit; set warm_start=False to start with another one")
        if not again:
            self.classes_ = classes
            self.mean_, self.scale_ = statistics(X, network.input_shape)
        x = self._standardised(X, network, X.dtype)
        controls = None
        if again:
            controls = tuple(tuple(a.astype(X.dtype) for a in stage) for stage in self.model_.controls)

        method = self.method
        if method is None and again and self.batch_size is not None:
            method = Method.minibatch(ramp=None)
        stopped: list[bool] = []

        def watched(it: Iterate, record: Record) -> bool:
            if self.callback is not None and self.callback(it, record):
                stopped.append(True)
            return bool(stopped)

        solution = solve(
            self._problem(network),
            x,
            labels,
            controls=controls,
            batch_size=None if self.batch_size is None else min(whole("batch_size", self.batch_size), len(x)),
            seed=self._seed(),
            method=method,
            epochs=whole("epochs", self.epochs),
            callback=watched,
            progress=self.progress,
        )
        self.model_ = solution.model
        self.status_, self.records_ = solution.status, solution.records
        self.J_, self.loss_ = solution.J, solution.loss
        self.nonzeros_, self.entries_ = solution.nonzeros, solution.entries
        self.n_iter_ = solution.iterate.epoch
        if solution.status is Status.INTERRUPTED:
            if not stopped:
                raise KeyboardInterrupt
        elif not solution.success:
            warnings.warn(f"{solution.status}: {solution.message}", ConvergenceWarning, stacklevel=2)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """softmax(x_L), (N, classes), in the order of ``classes_``."""
        return softmax(self._scores(X))

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest score, (N,)."""
        scores = self._scores(X)
        return self.classes_[np.argmax(scores, axis=1)]

    def certify(self, X: Any, y: Any) -> Certificate:
        """Certificate of the controls found on (X, y), labels as in ``fit``; see :func:`pmp_ref.library.certify`."""
        check_is_fitted(self)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], reset=False)
        if not np.isin(y, self.classes_).all():
            raise ValueError(f"y has the classes {np.unique(y)}; expected those of the fit, {self.classes_}")
        network, labels = self.model_.network, np.searchsorted(self.classes_, y)
        x = self._standardised(X, network, self.model_.dtype)
        return certify(self._problem(network), self.model_.controls, x, labels)

    # --- what fit and predict are made of -----------------------------------------------------------------------------

    def _problem(self, network: Network) -> Problem:
        return Problem(network, regulariser=L0() if self.regulariser is None else self.regulariser, rho=self.rho)

    def _scores(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        return self.model_.outputs(self._standardised(X, self.model_.network, self.model_.dtype))

    def _standardised(self, X: np.ndarray, network: Network, dtype: Any) -> np.ndarray:
        """(x − mean)/deviation in float64, rounded once, in the shape that the network takes."""
        return ((X - self.mean_) / self.scale_).astype(dtype).reshape(len(X), *network.input_shape)

    def _seed(self) -> int:
        """``random_state`` where it is an integer, as ``solve`` takes it; else drawn from it."""
        if isinstance(self.random_state, Integral):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _network(self, features: int, classes: int) -> Network:
        """The network for so many features and classes, or InputError."""
        shape = self._shape(features)
        if isinstance(self.network, Network):
            network = self.network
        elif isinstance(self.network, str):
            if self.network not in ARCHITECTURES:
                raise InputError(f"unknown network {self.network!r}: {nearest(self.network, ARCHITECTURES)}")
            if len(shape) != 3:
                raise InputError(f"{self.network} takes images, and image_shape is None; give it, (C, H, W)")
            make: Any = ARCHITECTURES[self.network]
            network = make(shape, classes)
        else:
            network = (default_network if self.network is None else self.network)(shape, classes)
        if network.takes_bytes:
            raise InputError(
                f"the network begins with {network.stages[0]}, which takes bytes; the classifier standardises X "
                "itself: give the network without that stage"
            )
        if math.prod(network.input_shape) != features or network.output_shape != (classes,):
            raise InputError(
                f"the network takes {network.input_shape} to {network.output_shape}; expected {features} features in "
                f"all, as X has, and ({classes},), a score for each class of y"
            )
        return network

    def _shape(self, features: int) -> tuple[int, ...]:
        """(C, H, W), or (features,) where the rows are no images."""
        if self.image_shape is None:
            return (features,)
        shape = tuple(self.image_shape)
        shape = (1, *shape) if len(shape) == 2 else shape
        if len(shape) != 3 or math.prod(shape) != features:
            raise InputError(
                f"image_shape is {self.image_shape}, and X has {features} features; expected (C, H, W) or (H, W) with "
                "as many pixels"
            )
        return shape


def whole(name: str, value: Any) -> int:
    """The Python integer: grids of parameters hold NumPy's."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} is {value!r}; expected an integer ≥ 1")
    return int(value)


def statistics(X: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each feature in float64; of all pixels of its channel where ``shape`` is (C, H, W).

    What is constant has its value as the mean and the deviation 1. Raises InputError where they overflow.
    """
    features = X.shape[1]
    groups = shape[0] if len(shape) == 3 else features
    x = X.astype(np.float64).reshape(len(X), groups, features // groups)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, std = x.mean(axis=(0, 2)), x.std(axis=(0, 2))
    lowest, highest = x.min(axis=(0, 2)), x.max(axis=(0, 2))
    constant = lowest == highest
    mean, std = np.where(constant, lowest, mean), np.where(constant | (std == 0), 1.0, std)
    if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(std))):
        raise InputError(f"X reaches {np.abs(X).max():.3g}, whose square overflows; divide it by a constant")
    return np.repeat(mean, features // groups), np.repeat(std, features // groups)
