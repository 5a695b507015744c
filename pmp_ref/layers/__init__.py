"""Elementary stages: forward map, costate map, switching function and second-order maps side by side."""

from pmp_ref.layers.activation import (
    ACTIVATIONS,
    Activation,
    LeakyReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softplus,
    Tanh,
    activation,
)
from pmp_ref.layers.convolution import Convolution
from pmp_ref.layers.dense import Dense, ScaleShift
from pmp_ref.layers.layer import AffineStage, ControlFreeStage, LinearStage, Stage
from pmp_ref.layers.normalisation import Standardise
from pmp_ref.layers.pixels import Pixels
from pmp_ref.layers.pooling import AveragePool, GlobalAveragePool, MaxPool
from pmp_ref.layers.reshape import Flatten
from pmp_ref.layers.residual import Block, WeightedSum, chain, residual

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "AffineStage",
    "AveragePool",
    "Block",
    "ControlFreeStage",
    "Convolution",
    "Dense",
    "Flatten",
    "GlobalAveragePool",
    "LeakyReLU",
    "LinearStage",
    "MaxPool",
    "Pixels",
    "ReLU",
    "ScaleShift",
    "SiLU",
    "Sigmoid",
    "Softplus",
    "Stage",
    "Standardise",
    "Tanh",
    "WeightedSum",
    "activation",
    "chain",
    "residual",
]
