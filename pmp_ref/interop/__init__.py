"""Models of other programs: ONNX (extra ``onnx``) and PyTorch (extra ``torch``), in and out. Neither is loaded before
it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pmp_ref.errors import InputError
from pmp_ref.model import Model

__all__ = ["from_onnx", "from_torch"]


def from_onnx(
    path: str | Path,
    *,
    output: str | None = None,
    class_names: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Model:
    """The network in an ONNX file, from its only input to ``output``, a tensor's name (None: the first output).

    Every operator becomes a stage, or part of one: a transposition, a reshape or a padding goes into the weights of
    the stage that reads it, a constant by channel becomes a ``ScaleShift``. Weights keep their bits and their dtype.
    An input whose channels come last is taken with channels first, (C, H, W), as everywhere here. Bytes (uint8) as
    input make a model that takes bytes; so do ``mean`` and ``std``, one for each channel, of (x/255 − mean)/std, for a
    file that takes standardised images.

    Raises InputError with node, operator and reason for what has no stage here, and for a file that is damaged, too
    large, or has parts elsewhere. Nothing but that file is read, and no code runs from it.
    """
    from pmp_ref.interop.onnx_in import read

    return read(Path(path), output, tuple(class_names), tuple(map(float, mean)), tuple(map(float, std)))


def from_torch(
    module: Any,
    example: Any,
    *,
    class_names: Sequence[str] = (),
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
) -> Model:
    """The network of a PyTorch module, in inference: dropout is the identity, batch norm a scale and a shift.

    The module is traced by ``torch.fx``, that is, its ``forward`` runs once on placeholders; ``example`` is a batch as
    it takes it, (N, C, H, W) or (N, n), of which the shape counts and on which the outputs are compared. Weights keep
    their bits and their dtype. ``mean`` and ``std`` as in :func:`from_onnx`. A module that :meth:`Model.to_torch` made
    gives its own network back.

    Raises InputError with node, operator and reason for what has no stage here, for a ``forward`` that cannot be
    traced, and if the outputs on ``example`` differ by more than rounding.
    """
    try:
        from pmp_ref.interop.torch_in import read
    except ImportError:
        raise InputError("from_torch needs PyTorch, which is missing: pip install torch") from None
    return read(module, example, tuple(class_names), tuple(map(float, mean)), tuple(map(float, std)))
