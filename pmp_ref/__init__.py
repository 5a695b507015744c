"""pmp_ref: training sparse convolutional networks by the discrete-time Pontryagin maximum principle.

Reference implementation of the batch sequential quadratic Hamiltonian method (bSQH). Start reading at
``pmp_ref.bsqh``; ``docs/theory.md`` holds the statements T0–T19 that docstrings refer to.
"""

from pmp_ref.acceptance import AbsoluteTest, NoTest, RelativeTest
from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.architectures import lenet5, lenet5_caffe, residual_net
from pmp_ref.augmentation import ClassicRule, CurvatureRule, FixedRule
from pmp_ref.bsqh import Method, Ramp, Stop, prepare, solve, step
from pmp_ref.certificate import Certificate, certify
from pmp_ref.errors import InputError, LabelWarning, PenaltyWarning, ScaleWarning
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import (
    AveragePool,
    Convolution,
    Dense,
    Flatten,
    GlobalAveragePool,
    LeakyReLU,
    MaxPool,
    ReLU,
    ScaleShift,
    Sigmoid,
    SiLU,
    Softplus,
    Standardise,
    Tanh,
    residual,
)
from pmp_ref.loss import CrossEntropy, SquaredLoss
from pmp_ref.metric import Averaging, GradientMetric, IdentityMetric, LayerMetric
from pmp_ref.network import Network
from pmp_ref.problem import Problem, layer_weights
from pmp_ref.regulariser import L0, L1, L2, GroupL0, LHalf, LTwoThirds, NoPenalty, Polynomial
from pmp_ref.result import Iterate, Record, Solution, Status
from pmp_ref.sweep import Evaluation, Sweep

__version__ = "0.1.0"

__all__ = [
    "L0",
    "L1",
    "L2",
    "WHOLE_LINE",
    "AbsoluteTest",
    "AveragePool",
    "Averaging",
    "Box",
    "Certificate",
    "ClassicRule",
    "Convolution",
    "CrossEntropy",
    "CurvatureRule",
    "Dense",
    "Evaluation",
    "FiniteSet",
    "FixedRule",
    "Flatten",
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
    "Network",
    "NoPenalty",
    "NoTest",
    "PenaltyWarning",
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
    "certify",
    "initial_controls",
    "layer_weights",
    "lenet5",
    "lenet5_caffe",
    "prepare",
    "residual",
    "residual_net",
    "solve",
    "step",
]
