"""A network is a chain of stages; its forward sweep gives the states, its backward sweep the costates (T1)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Any

from pmp_ref.arrays import Array, Controls, check_together, device, is_array, library
from pmp_ref.errors import InputError
from pmp_ref.layers.layer import Stage


@dataclass(frozen=True, repr=False)
class Network:
    """The chain x_{l+1} = Λ_l(x_l, u_l), l = 0 … L−1.

    ``input_shape`` is the per-sample shape of x_0. ``shapes[l]`` is the per-sample shape of x_l (a pair inside a
    residual block), ``control_shapes[l]`` the shapes of u_l. Raises InputError, naming the stage, if shapes do not
    chain.
    """

    stages: tuple[Stage, ...]
    input_shape: tuple[int, ...]
    shapes: tuple[Any, ...] = field(init=False)
    control_shapes: tuple[tuple[tuple[int, ...], ...], ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(self.stages))
        object.__setattr__(self, "input_shape", tuple(self.input_shape))
        shapes: list[Any] = [self.input_shape]
        controls = []
        for l, stage in enumerate(self.stages):
            if not isinstance(stage, Stage):
                raise InputError(f"stage {l} is a {type(stage).__name__}; expected a Stage")
            try:
                shapes.append(stage.output_shape(shapes[-1]))
            except InputError as error:
                raise InputError(f"stage {l} ({stage}) does not take states of shape {shapes[-1]}: {error}") from None
            controls.append(stage.control_shapes(shapes[l]))
        object.__setattr__(self, "shapes", tuple(shapes))
        object.__setattr__(self, "control_shapes", tuple(controls))

    def __repr__(self) -> str:
        entries = sum(prod(shape) for shapes in self.control_shapes for shape in shapes)
        states = "×".join(map(str, self.input_shape))
        return f"<Network: {states} through {len(self.stages)} stages to {self.output_shape}, {entries:,} controls>"

    @property
    def output_shape(self) -> Any:
        """Per-sample shape of x_L."""
        return self.shapes[-1]

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

    def forward_sweep(self, controls: Controls, x: Array) -> list[Any]:
        """States [x_0, …, x_L] of the batch x, shape (B, *input_shape)."""
        states = [x]
        for stage, u in zip(self.stages, controls, strict=True):
            states.append(stage.forward(states[-1], u))
        return states

    def backward_sweep(self, controls: Controls, states: list[Any], p: Array) -> tuple[list[Any], Controls]:
        """Costates [None, p_1, …, p_L] and switching functions g from p_L = ``p`` (T1).

        p_l = ∂_x⟨p_{l+1}, Λ_l(x_l, u_l)⟩, g_l = ∂_u⟨p_{l+1}, Λ_l(x_l, u_l)⟩ summed over the batch; p_0 is not needed.
        """
        costates: list[Any] = [None] * len(self.stages) + [p]
        g: list[tuple[Array, ...]] = [()] * len(self.stages)
        for l in range(len(self.stages) - 1, -1, -1):
            stage, x, u = self.stages[l], states[l], controls[l]
            g[l] = stage.switching(x, u, costates[l + 1])
            if l > 0:
                costates[l] = stage.costate(x, u, costates[l + 1])
        return costates, tuple(g)

    def check_controls(self, controls: Controls, x: Array) -> None:
        """Raise InputError unless the controls have the network's nesting and shapes, and the library, device and
        dtype of ``x``."""
        if len(controls) != len(self.stages):
            raise InputError(f"controls hold {len(controls)} stages; the network has {len(self.stages)}")
        for l, (u, shapes) in enumerate(zip(controls, self.control_shapes, strict=True)):
            if len(u) != len(shapes):
                raise InputError(f"controls of stage {l} hold {len(u)} arrays; {self.stages[l]} has {len(shapes)}")
            for a, shape, name in zip(u, shapes, self.stages[l].control_names, strict=True):
                if is_array(a) and tuple(a.shape) != shape:
                    raise InputError(f"{name} of stage {l} ({self.stages[l]}) has shape {a.shape}; expected {shape}")
                check_together(images=x, **{f"the {name} of stage {l}": a})
                if a.dtype != x.dtype:
                    raise InputError(
                        f"images are {x.dtype} but the {name} of stage {l} is {a.dtype}; expected one dtype"
                    )

    def check_images(self, x: Array) -> None:
        """Raise InputError unless ``x`` is a non-empty floating batch of the network's input shape."""
        if not is_array(x):
            raise InputError(f"images are a {library(x)}; expected an array of shape (B, *{self.input_shape})")
        if tuple(x.shape[1:]) != self.input_shape:
            raise InputError(f"images have shape {tuple(x.shape)}; the network expects (B, *{self.input_shape})")
        if x.shape[0] == 0:
            raise InputError("the batch of images is empty; expected at least one sample")
        if "float" not in str(x.dtype):
            raise InputError(
                f"images are {x.dtype} on {device(x)}; convert them to float32 or float64 (and scale them)"
            )
