"""What the script needs beside Python, looked for before anything is imported."""

from __future__ import annotations

import importlib.util

# What a machine may lack that has CuPy, PyTorch, NumPy, SciPy, Matplotlib, Pillow, tqdm, threadpoolctl, hypothesis,
# pytest and pytest-xdist. Each is one wheel for every Python, without needs of its own but NumPy.
NEEDS = ("array-api-compat", "array-api-strict")


def missing(needs: tuple[str, ...] = NEEDS) -> list[str]:
    """Those that cannot be imported."""
    return [name for name in needs if importlib.util.find_spec(name.replace("-", "_")) is None]


def how_to_bring(names: list[str]) -> str:
    """What to do where no registry can be reached."""
    wanted = " ".join(names)
    return (
        f"{wanted} cannot be imported. Where there is a network: python -m pip download --no-deps -d wheels {wanted}; "
        f"bring the folder along; here: python -m pip install --no-index --no-deps --find-links wheels {wanted}"
    )
