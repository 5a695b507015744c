"""Buffers of one chunk, and a store from which workers take them."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np


@dataclass
class Workspace:
    """Arrays of one chunk of ``batch`` samples; the batch is their last axis.

    ``array`` gives the array of a stage under its key; it lives as long as the sweep of the chunk. ``scratch`` gives room
    that all stages share under one name, so that it stays in cache; it lives as long as one map. Both hold what was left
    in them, except that a new array holds zeros.
    """

    batch: int
    dtype: Any
    arrays: dict[Any, np.ndarray] = field(default_factory=dict)
    room: dict[str, np.ndarray] = field(default_factory=dict)

    def array(self, key: Any, shape: tuple[int, ...]) -> np.ndarray:
        """The array of that key, of shape (*shape, batch)."""
        a = self.arrays.get(key)
        if a is None:
            a = self.arrays[key] = np.zeros((*shape, self.batch), self.dtype)
        return a

    def switching(self, key: Any, shape: tuple[int, ...]) -> np.ndarray:
        """The array for a switching function, without a batch axis; the caller of the chunk's sweep reads it."""
        a = self.arrays.get(key)
        if a is None:
            a = self.arrays[key] = np.empty(shape, self.dtype)
        return a

    def scratch(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Room of that name, of shape (*shape, batch)."""
        n = prod(shape) * self.batch
        a = self.room.get(name)
        if a is None or a.size < n:
            a = self.room[name] = np.empty(n, self.dtype)
        return a[:n].reshape(*shape, self.batch)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return sum(a.nbytes for arrays in (self.arrays, self.room) for a in arrays.values())


class Store:
    """Workspaces not in use. Taking and giving back may be done by any thread; a copy of a store is an empty store."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # entered again if collecting garbage gives workspaces back
        self._free: list[Workspace] = []

    def take(self, batch: int, dtype: Any) -> Workspace:
        """A free workspace for that chunk size and dtype, or a new one."""
        with self._lock:
            for i in range(len(self._free) - 1, -1, -1):
                if self._free[i].batch == batch and self._free[i].dtype == dtype:
                    return self._free.pop(i)
        return Workspace(batch, dtype)

    def give(self, *workspaces: Workspace) -> None:
        """Put workspaces back."""
        with self._lock:
            self._free.extend(workspaces)

    @property
    def nbytes(self) -> int:
        """Bytes held by the workspaces not in use."""
        with self._lock:
            return sum(w.nbytes for w in self._free)

    def __reduce__(self) -> Any:
        return Store, ()

    def __deepcopy__(self, memo: Any) -> Store:
        return Store()
