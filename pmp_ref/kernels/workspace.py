"""Arrays of a chunk, and a store from which workers take them. Fresh memory costs more than most maps."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

Arrays = dict[Any, np.ndarray]


@dataclass
class Workspace:
    """Arrays of one chunk of ``batch`` samples; the batch is their last axis. Three kinds, by how long they live:

    ``array``: a stage's own, as long as the states of the chunk are kept. ``scratch``: room that all stages of a
    worker share under one name, so that it stays in cache; as long as one map. ``result``: switching functions,
    without a batch axis, until they are added to those of the other chunks. All hold what was left in them; a new
    ``array`` holds zeros.
    """

    batch: int
    dtype: Any
    arrays: Arrays = field(default_factory=dict)
    room: Arrays = field(default_factory=dict)
    results: Arrays = field(default_factory=dict)

    def array(self, key: Any, shape: tuple[int, ...]) -> np.ndarray:
        """The array of that key, of shape (*shape, batch)."""
        a = self.arrays.get(key)
        if a is None:
            a = self.arrays[key] = np.zeros((*shape, self.batch), self.dtype)
        return a

    def scratch(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Room of that name, of shape (*shape, batch)."""
        return self.plain_scratch(name, (*shape, self.batch))

    def plain_scratch(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """Room of that name and shape, without a batch axis."""
        n = prod(shape)
        a = self.room.get(name)
        if a is None or a.size < n:
            a = self.room[name] = np.empty(n, self.dtype)
        return a[:n].reshape(shape)

    def result(self, key: Any, shape: tuple[int, ...]) -> np.ndarray:
        """The array for a switching function."""
        a = self.results.get(key)
        if a is None:
            a = self.results[key] = np.empty(shape, self.dtype)
        return a


class Store:
    """Arrays not in use, last in first out, since the last are still in cache.

    Taking and giving back may be done by any thread; a copy of a store is an empty store.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # entered again if collecting garbage gives arrays back
        self._free: dict[Any, list[Arrays]] = {}

    def take(self, batch: int, dtype: Any) -> Workspace:
        """A workspace for a chunk of that size and dtype."""
        dtype = np.dtype(dtype)
        return Workspace(
            batch, dtype, self._pop("arrays", dtype, batch), self._pop("room", dtype), self._pop("results", dtype)
        )

    def equip(self, w: Workspace) -> Workspace:
        """The workspace with room again."""
        w.room, w.results = self._pop("room", w.dtype), self._pop("results", w.dtype)
        return w

    def give_room(self, w: Workspace) -> None:
        """Take the room back from a workspace whose states or results are still needed."""
        w.room = self._push(w.room, "room", w.dtype)

    def give(self, w: Workspace, states: bool = True) -> None:
        """Take back the results, and the states too unless they are to be kept."""
        w.results = self._push(w.results, "results", w.dtype)
        if states:
            w.arrays = self._push(w.arrays, "arrays", w.dtype, w.batch)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays not in use."""
        with self._lock:
            return sum(a.nbytes for free in self._free.values() for arrays in free for a in arrays.values())

    def _pop(self, *kind: Any) -> Arrays:
        with self._lock:
            free = self._free.get(kind)
            return free.pop() if free else {}

    def _push(self, arrays: Arrays, *kind: Any) -> Arrays:
        if arrays:
            with self._lock:
                self._free.setdefault(kind, []).append(arrays)
        return {}

    def __reduce__(self) -> Any:
        return Store, ()

    def __deepcopy__(self, memo: Any) -> Store:
        return Store()


def keep_freed_memory() -> None:
    """Have the allocator keep what arrays of a few MiB leave behind, as it does once a larger array has been freed.

    glibc gives back to the system what exceeds twice the largest block freed so far, and a step takes it anew: some 300
    page faults in LeNet-5, a tenth of its time. No page of the array below is touched. Elsewhere this does nothing.
    """
    np.empty(8 * 2**20, np.uint8)
