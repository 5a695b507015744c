"""AutoBound's side of ``remainders``: a program of its own, for an environment of its own, without ``pmp_ref``.

Reads the name of an ``.npz`` file with the steps from standard input and answers with JSON: for each step and order n
the coefficients of φ from t = 0, and from t = ½, on [0, 1], the last an interval, and seconds.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from autobound.jax import taylor_bounds

ORDERS = (2, 3, 4)
FUNCTIONS = {  # AutoBound 0.1.4 knows no tanh
    "Tanh": lambda z: 2 * jax.nn.sigmoid(2 * z) - 1,
    "Sigmoid": jax.nn.sigmoid,
    "Softplus": jax.nn.softplus,
    "SiLU": jax.nn.swish,
}


def loss_along(step: Any) -> Any:
    """t ↦ mean loss at u + tΔ of a chain of dense stages."""
    x, y = step["x"], step["y"]
    sigma, layers = FUNCTIONS[str(step["activation"])], int(step["layers"])

    def phi(t: Any) -> Any:
        state = x
        for l in range(layers):
            kernel, bias = (step[f"{name}{l}"] + t * step[f"change_{name}{l}"] for name in ("kernel", "bias"))
            state = state @ kernel.T + bias
            state = sigma(state) if l + 1 < layers else state
        if y.dtype.kind == "f":
            return jnp.mean(jnp.sum((state - y) * (state - y), axis=1)) / 2
        own = np.eye(state.shape[1])[y]
        return jnp.mean(jnp.log(jnp.sum(jnp.exp(state), axis=1)) - jnp.sum(own * state, axis=1))

    return phi


def measured(phi: Any, centre: float, order: int) -> dict[str, Any]:
    """Coefficients as pairs of ends; processor seconds of the second call.

    Operation by operation: AutoBound 0.1.4 does not go through ``jax.jit`` for the logistic function of order 3.
    """
    bounds, seconds = taylor_bounds(phi, max_degree=order), 0.0
    for _ in range(2):
        start = time.process_time()
        found = bounds(centre, (0.0, 1.0)).coefficients
        jax.block_until_ready(found)
        seconds = time.process_time() - start
    ends = [c if isinstance(c, tuple) else (c, c) for c in found]
    return {"ends": [[float(e) for e in c] for c in ends], "seconds": seconds}


def main() -> None:
    """Answer one file."""
    jax.config.update("jax_enable_x64", True)
    with np.load(sys.stdin.readline().strip()) as archive:
        arrays = dict(archive)
    answers = []
    for i in range(int(arrays["steps"])):
        prefix = f"{i}/"
        phi = loss_along({k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)})
        answers.append({f"{n}": [measured(phi, centre, n) for centre in (0.0, 0.5)] for n in ORDERS})
        print(f"AutoBound: step {i + 1} of {arrays['steps']}", file=sys.stderr, flush=True)
    print(json.dumps({"version": jax.__version__, "steps": answers}))


if __name__ == "__main__":
    main()
