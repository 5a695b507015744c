"""pmp_ref: training sparse convolutional networks by the discrete-time Pontryagin maximum principle.

Reference implementation of the batch sequential quadratic Hamiltonian method (bSQH). Start reading at
``pmp_ref.bsqh``; ``docs/theory.md`` holds the statements T0–T19 that docstrings refer to.
"""

from pmp_ref.acceptance import Absolute, NoTest, Relative
from pmp_ref.admissible import WHOLE_LINE, Box, FiniteSet
from pmp_ref.architectures import lenet5, lenet5_caffe, residual_net
from pmp_ref.augmentation import Classic, Curvature, Fixed
from pmp_ref.bsqh import Method, Ramp, Stop, prepare, solve, step
from pmp_ref.certificate import Certificate, certify
from pmp_ref.errors import InputError, LabelWarning, PenaltyWarning, ScaleWarning
from pmp_ref.initialise import initial_controls
from pmp_ref.layers import (
    AveragePool,
    Block,
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
    WeightedSum,
    chain,
    residual,
)
from pmp_ref.loss import CrossEntropy, Squared
from pmp_ref.metric import Averaging, GradientScaled, Identity, PerLayer
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
    "Absolute",
    "AveragePool",
    "Averaging",
    "Block",
    "Box",
    "Certificate",
    "Classic",
    "Convolution",
    "CrossEntropy",
    "Curvature",
    "Dense",
    "Evaluation",
    "FiniteSet",
    "Fixed",
    "Flatten",
    "GlobalAveragePool",
    "GradientScaled",
    "GroupL0",
    "Identity",
    "InputError",
    "Iterate",
    "LHalf",
    "LTwoThirds",
    "LabelWarning",
    "LeakyReLU",
    "MaxPool",
    "Method",
    "Network",
    "NoPenalty",
    "NoTest",
    "PenaltyWarning",
    "PerLayer",
    "Polynomial",
    "Problem",
    "Ramp",
    "ReLU",
    "Record",
    "Relative",
    "ScaleShift",
    "ScaleWarning",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Solution",
    "Squared",
    "Standardise",
    "Status",
    "Stop",
    "Sweep",
    "Tanh",
    "WeightedSum",
    "certify",
    "chain",
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
