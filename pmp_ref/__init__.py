"""pmp_ref: training sparse convolutional networks by the discrete-time Pontryagin maximum principle.

    import pmp_ref as pr

    data = pr.load("mnist-subset")
    problem = pr.Problem(pr.lenet5(data), rho=4e-3)
    solution = pr.solve(problem, data.x, data.y, batch_size=64, epochs=24)

Reference implementation of the batch sequential quadratic Hamiltonian method (bSQH). What a user needs is here; to read
the method start at ``pmp_ref.bsqh``. ``docs/theory/`` holds the statements T0–T24 that docstrings refer to.
"""

from pmp_ref.acceptance import AbsoluteTest, NoTest, RelativeTest
from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.architectures import lenet5, lenet5_caffe, residual_net, resnet, resnet20
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule
from pmp_ref.averaging import Averaging
from pmp_ref.batches import FlipsAndShifts
from pmp_ref.cardinality import AtMost
from pmp_ref.certificate import Certificate
from pmp_ref.data import Dataset, load, prepare, standardise
from pmp_ref.errors import InputError, LabelWarning, PenaltyWarning, ScaleWarning
from pmp_ref.files import OutputError
from pmp_ref.initialise import initial_controls
from pmp_ref.interop import from_onnx, from_torch
from pmp_ref.iterate import Iterate
from pmp_ref.kernels import make_sweep
from pmp_ref.layers import (
    AveragePool,
    Block,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    Pixels,
    ReLU,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Standardise,
    Tanh,
    WeightedSum,
    chain,
    residual,
)
from pmp_ref.library import Solution, certify, solve, step
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.method import Method, Ramp
from pmp_ref.metric import GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.model import Model, read_model
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.regulariser import L0, L1, L2, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial
from pmp_ref.result import Record, Status, Verdict
from pmp_ref.stop import Stop
from pmp_ref.sweep import Evaluation, Sweep

__version__ = "0.1.0"

__all__ = [
    "L0",
    "L1",
    "L2",
    "WHOLE_LINE",
    "AbsoluteTest",
    "AtMost",
    "AveragePool",
    "Averaging",
    "Block",
    "Box",
    "Certificate",
    "ClassicRule",
    "Convolution",
    "CrossEntropy",
    "CurvatureRule",
    "Dataset",
    "Dense",
    "Evaluation",
    "FiniteSet",
    "FixedRule",
    "Flatten",
    "FlipsAndShifts",
    "GlobalAveragePool",
    "GradientMetric",
    "GroupL0",
    "IdentityMetric",
    "InputError",
    "Iterate",
    "LHalf",
    "LTwoThirds",
    "LabelWarning",
    "LayerMetric",
    "LeakyReLU",
    "MaxPool",
    "Method",
    "Model",
    "Network",
    "NoPenalty",
    "NoTest",
    "OutputError",
    "PenaltyWarning",
    "Pixels",
    "Polynomial",
    "Problem",
    "Ramp",
    "ReLU",
    "Record",
    "RelativeTest",
    "ScaleShift",
    "ScaleWarning",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Solution",
    "SquaredLoss",
    "Standardise",
    "Status",
    "Stop",
    "Sweep",
    "Tanh",
    "Verdict",
    "WeightedSum",
    "certify",
    "chain",
    "from_onnx",
    "from_torch",
    "initial_controls",
    "layer_weights",
    "lenet5",
    "lenet5_caffe",
    "load",
    "make_sweep",
    "prepare",
    "read_model",
    "residual",
    "residual_net",
    "resnet",
    "resnet20",
    "solve",
    "standardise",
    "step",
]
