"""A network is a list of stages and, for each, which states it reads. Its forward sweep gives the states, its backward
sweep the costates (T1)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from pmp_ref.arrays import Array, Controls, check_together, device, is_array, is_floating, library, namespace
from pmp_ref.controls import arrays_of, kernels_of
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Shape, Stage
from pmp_ref.layers.pixels import Pixels
from pmp_ref.layers.residual import Block, Reads, chain


def plus(i: int, a: Any, b: Any) -> Any:
    """a + b, two parts of the costate of x_i."""
    return a + b


@dataclass(frozen=True, init=False, repr=False)
class Network:
    """x_{l+1} = Λ_l(x_i for i in reads[l]; u_l), l = 0 … L−1; reads[l] = (l,), a chain, unless said otherwise.

    ``stages`` may hold blocks, which say what their stages read (:func:`pmp_ref.layers.residual`); with ``reads`` it
    holds stages alone. ``input_shape`` is the per-sample shape of x_0. ``readers[l]`` are the stages that read x_l, in
    order (twice one that reads it twice), ``shapes[l]`` is its per-sample shape and ``controlled[l]`` says whether it
    depends on a control at all, so that it has a costate; ``control_shapes[l]`` are the shapes of u_l. Raises
    InputError, naming the stage, if shapes do not fit, if a stage reads what is not there yet, or if nobody reads a
    state but the last.
    """

    stages: tuple[Stage, ...]
    input_shape: Shape
    reads: Reads
    readers: Reads = field(init=False, compare=False)
    shapes: tuple[Shape, ...] = field(init=False, compare=False)
    control_shapes: tuple[tuple[Shape, ...], ...] = field(init=False, compare=False)
    controlled: tuple[bool, ...] = field(init=False, compare=False)

    def __init__(
        self, stages: Sequence[Stage | Block], input_shape: Shape, reads: Sequence[Sequence[int]] | None = None
    ) -> None:
        block = chain(*stages) if reads is None else Block(tuple(stages), tuple(map(tuple, reads)))  # type: ignore[arg-type]
        self._set("stages", block.stages)
        self._set("reads", block.reads)
        self._set("input_shape", tuple(input_shape))
        self._check_reads()
        shapes, controls, controlled = [self.input_shape], [], [False]
        for l, stage in enumerate(self.stages):
            shape = self.entering(l, shapes)
            try:
                leaving = stage.output_shape(shape)
            except InputError as error:
                raise InputError(f"stage {l} ({stage}) does not take states of shape {shape}: {error}") from None
            shapes.append(leaving)
            controls.append(stage.control_shapes(shape))
            controlled.append(bool(controls[l]) or any(controlled[i] for i in self.reads[l]))
        self._set("shapes", tuple(shapes))
        self._set("control_shapes", tuple(controls))
        self._set("controlled", tuple(controlled))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_reads(self) -> None:
        if len(self.reads) != len(self.stages):
            raise InputError(
                f"reads has {len(self.reads)} entries for {len(self.stages)} stages; expected one for each"
            )
        for l, (stage, states) in enumerate(zip(self.stages, self.reads, strict=True)):
            if not isinstance(stage, Stage):
                raise InputError(f"stage {l} is a {type(stage).__name__}; expected a Stage")
            if len(states) != stage.arity:
                raise InputError(
                    f"stage {l} ({stage}) reads the states {states}; expected {stage.arity} of them, named in reads"
                )
            if l > 0 and (isinstance(stage, Pixels) or (self.takes_bytes and 0 in states)):
                raise InputError(
                    f"stage {l} ({stage}) reads the states {states}; Pixels is to be stage 0, alone to read the images"
                )
            if not all(0 <= i <= l for i in states):
                raise InputError(f"stage {l} ({stage}) reads the states {states}; there are states 0 to {l} before it")
        each = range(len(self.stages))
        self._set("readers", tuple(tuple(l for l in each for j in self.reads[l] if j == i) for i in each))
        if () in self.readers:
            unread = self.readers.index(())
            raise InputError(f"nobody reads state {unread}; expected a reader for each state but the last")

    def __repr__(self) -> str:
        entries = sum(prod(shape) for shapes in self.control_shapes for shape in shapes)
        states = "×".join(map(str, self.input_shape))
        return f"<Network: {states} through {len(self.stages)} stages to {self.output_shape}, {entries:,} controls>"

    @property
    def output_shape(self) -> Shape:
        """Per-sample shape of x_L."""
        return self.shapes[-1]

    @property
    def takes_bytes(self) -> bool:
        """True if x_0 are images as they are, uint8, for stage 0 is :class:`pmp_ref.layers.Pixels`."""
        return bool(self.stages) and isinstance(self.stages[0], Pixels)

    @property
    def is_chain(self) -> bool:
        """True if every stage reads the state before it and no other."""
        return all(states == (l,) for l, states in enumerate(self.reads))

    @property
    def analytic(self) -> bool:
        """True if every stage is smooth, so that the constants of T6–T9 exist."""
        return all(stage.analytic for stage in self.stages)

    def names(self) -> tuple[tuple[str, ...], ...]:
        """Control names in the nesting of the controls, e.g. ``(("kernel", "bias"), (), …)``."""
        return tuple(stage.control_names for stage in self.stages)

    def layers(self) -> tuple[int, ...]:
        """Indices of the stages that have controls."""
        return tuple(l for l, shapes in enumerate(self.control_shapes) if shapes)

    def kernel_size(self) -> int:
        """Entries of all kernels."""
        return sum(map(prod, kernels_of(self.names(), self.control_shapes)))

    def entering(self, l: int, states: Sequence[Any]) -> Any:
        """What enters stage l, of ``states`` (or their shapes, jets, …): one, or a tuple where it reads several."""
        read = self.reads[l]
        return states[read[0]] if len(read) == 1 else tuple(states[i] for i in read)

    def propagate(self, step: Callable[[int, Any], Any], first: Any, keep: bool = True) -> list[Any]:
        """[y_0, …, y_L] with y_0 = ``first``, y_{l+1} = step(l, what enters stage l). Without ``keep`` a state is let
        go, and None stands in its place, once its last reader has run."""
        states = [first]
        for l in range(len(self.stages)):
            states.append(step(l, self.entering(l, states)))
            if not keep:
                for i in self.reads[l]:
                    if self.readers[i][-1] == l:
                        states[i] = None
        return states

    def hand_back(self, l: int, parts: Any, costates: list[Any], add: Callable[[int, Any, Any], Any] = plus) -> None:
        """Give what stage l hands back (a tuple where it reads several states) to the states that it reads.

        costates[i] becomes the sum over the readers of x_i, the last reader first; add(i, a, b) adds two parts of it.
        """
        for i, part in zip(self.reads[l], parts if len(self.reads[l]) > 1 else (parts,), strict=True):
            if self.controlled[i]:
                costates[i] = part if costates[i] is None else add(i, costates[i], part)

    def forward_sweep(self, controls: Controls, x: Array, keep: bool = True) -> list[Any]:
        """States [x_0, …, x_L] of the batch x, shape (B, *input_shape); without ``keep`` only x_L is left. Of images as
        they are x_0 has the dtype of the controls."""
        if self.takes_bytes:
            x = namespace(x).astype(x, states_like(controls, x).dtype, copy=False)
        return self.propagate(lambda l, entering: self.stages[l].forward(entering, controls[l]), x, keep)

    def backward_sweep(self, controls: Controls, states: list[Any], p: Array) -> tuple[list[Any], Controls]:
        """Costates [p_0, …, p_L] and switching functions g from p_L = ``p`` (T1).

        p_i = Σ_l ∂_{x_i}⟨p_{l+1}, Λ_l⟩ over the readers l of x_i, g_l = ∂_u⟨p_{l+1}, Λ_l⟩ summed over the batch, at the
        states and controls given. A state that depends on no control, such as x_0, needs no costate: None.
        """
        costates: list[Any] = [None] * len(self.stages) + [p]
        g: list[tuple[Array, ...]] = [()] * len(self.stages)
        for l in range(len(self.stages) - 1, -1, -1):
            at = (self.entering(l, states), controls[l], costates[l + 1])
            if self.controlled[l + 1]:
                g[l] = self.stages[l].switching(*at)
            if any(self.controlled[i] for i in self.reads[l]):
                self.hand_back(l, self.stages[l].costate(*at), costates)
        return costates, tuple(g)

    def check_controls(self, controls: Controls, x: Array) -> None:
        """Raise InputError unless the controls have the network's nesting and shapes, the library and device of ``x``,
        and one floating dtype, that of ``x`` unless these are bytes."""
        if len(controls) != len(self.stages):
            raise InputError(f"controls hold {len(controls)} stages; the network has {len(self.stages)}")
        dtype = None if self.takes_bytes else x.dtype
        for l, (u, shapes) in enumerate(zip(controls, self.control_shapes, strict=True)):
            if len(u) != len(shapes):
                raise InputError(f"controls of stage {l} hold {len(u)} arrays; {self.stages[l]} has {len(shapes)}")
            for a, shape, name in zip(u, shapes, self.stages[l].control_names, strict=True):
                if is_array(a) and tuple(a.shape) != shape:
                    raise InputError(f"{name} of stage {l} ({self.stages[l]}) has shape {a.shape}; expected {shape}")
                check_together(images=x, **{f"the {name} of stage {l}": a})
                if dtype is None and is_floating(a):
                    dtype = a.dtype  # of the first control
                if a.dtype != dtype:
                    first = self.takes_bytes and dtype is not None
                    others = f"other controls are {dtype}" if first else f"images are {x.dtype}"
                    raise InputError(f"{others} but the {name} of stage {l} is {a.dtype}; expected one floating dtype")

    def extremes(self, controls: Controls, x: Array) -> Array:
        """Images with the largest absolute value of x; where x are bytes two images, of the least and the largest value
        of each channel as Pixels makes them."""
        if not self.takes_bytes:
            return x
        xp, axes = namespace(x), (0, *range(2, x.ndim))
        ends = xp.concat([f(x, axis=axes, keepdims=True) for f in (xp.min, xp.max)])
        return self.stages[0].forward(xp.astype(ends, states_like(controls, x).dtype), ())

    def check_images(self, x: Array) -> None:
        """Raise InputError unless ``x`` is a non-empty batch of the network's input shape: bytes, uint8, where the
        network begins with Pixels, else floating."""
        if not is_array(x):
            raise InputError(f"images are a {library(x)}; expected an array of shape (B, *{self.input_shape})")
        if tuple(x.shape[1:]) != self.input_shape:
            raise InputError(f"images have shape {tuple(x.shape)}; the network expects (B, *{self.input_shape})")
        if x.shape[0] == 0:
            raise InputError("the batch of images is empty; expected at least one sample")
        self.check_dtype(x)

    def check_dtype(self, x: Array) -> None:
        """Raise InputError unless x are bytes, uint8, where the network begins with Pixels, and floats elsewhere."""
        if self.takes_bytes and x.dtype != namespace(x).uint8:
            raise InputError(
                f"images are {x.dtype}; expected bytes, uint8 from 0 to 255 as in the files: {self.stages[0]} at the "
                "head of the network standardises them"
            )
        if not self.takes_bytes and not is_floating(x):
            raise InputError(
                f"images are {x.dtype} on {device(x)}; convert them to float32 or float64 (and scale them), or put "
                "Pixels at the head of the network, which takes bytes"
            )


def states_like(controls: Controls, x: Array) -> Array:
    """An array with the dtype of the states: ``x``, or the first control where x are bytes."""
    return next(arrays_of(controls)) if namespace(x).isdtype(x.dtype, "integral") else x


def headed(head: Stage, network: Network) -> Network:
    """``network`` behind a stage that makes its input, such as Pixels of the training images' mean and deviation.

    Stage l becomes stage l + 1. ``head`` keeps the shape of the images.
    """
    reads = [(0,), *(tuple(i + 1 for i in states) for states in network.reads)]
    return Network((head, *network.stages), network.input_shape, reads)
