"""How the work of a product C[m, n] = Σ_k A(m, k) B(k, n) is cut into blocks: from its shape alone, never the device.

The rule. The first of ``TILES``, from the largest to the smallest, that gives ``BLOCKS`` blocks; the smallest if none
does. A tile is no higher than the rows there are: 6, 10, 16, 20 or 50 output channels fill one row of tiles of that
height. A thread has up to ten rows (read from shared memory as vectors, the same for the whole warp); threads left over
share the columns, or the steps of k where the columns are few. If blocks are too few still, several share the k axis.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pmp_ref.kernels.cuda.source import ceil, power_of_two

BLOCKS = 264  # two for each of the 132 multiprocessors of an H100
BUSY = 1024  # blocks at which sharing the k axis ends: about eight for each multiprocessor
TILES = ((64, 256), (64, 128), (64, 64), (64, 32), (32, 32), (16, 32), (8, 32))
SHARED = 48 * 1024  # bytes of shared memory of a block
LONGEST = 8192  # steps of k that one block adds up in the arrays' own precision


@dataclass(frozen=True)
class Tiles:
    """The macros of ``products.cu`` of the same names, and the numbers of tiles along m and n and of splits of k."""

    rm: int
    rn: int
    slices: int
    tm: int
    tn: int
    bk: int
    m_tiles: int
    n_tiles: int
    splits: int
    chunk: int

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.rm * self.rn * self.slices

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a block."""
        return self.rm * self.tm, self.rn * self.tn

    def shared(self, itemsize: int, a_along_k: bool, b_along_k: bool) -> int:
        """Bytes of shared memory."""
        rows, columns = self.tile
        a = ceil(self.bk * (rows + 4 * a_along_k), 4) * 4
        return itemsize * max(a + self.bk * (columns + b_along_k), self.slices // 2 * rows * columns)

    def defines(self, a_along_k: bool, b_along_k: bool) -> dict[str, int]:
        """Macros of the source."""
        rows, columns = map(power_of_two, self.tile)
        return {
            "RM": self.rm,
            "RN": self.rn,
            "SLICES": self.slices,
            "TM": self.tm,
            "TN": self.tn,
            "BK": self.bk,
            "A_ALONG_K": int(a_along_k),
            "A_LINE": self.bk if a_along_k else rows,
            "B_ALONG_K": int(b_along_k),
            "B_LINE": self.bk if b_along_k else columns,
            "SPLIT": int(self.splits > 1),
        }


@lru_cache(maxsize=4096)
def tiles(
    m: int, n: int, k: int, groups: int, a_along_k: bool, b_along_k: bool, itemsize: int, gradient: bool
) -> Tiles:
    """The tiles of a product of ``groups`` matrices m × k and k × n.

    ``a_along_k``, ``b_along_k``: neighbours in memory are neighbours along k. ``gradient``: k runs over the batch.
    """
    least = 128 if gradient else 1024  # steps of k that are worth a block of their own and a second launch
    for height, width in TILES:
        if width > 128 and (itemsize == 8 or (gradient and b_along_k)):
            continue  # too many registers
        t = tile(m, n, k, height, width, itemsize, a_along_k, b_along_k, gradient)
        blocks = groups * t["m_tiles"] * t["n_tiles"]
        if blocks * max(1, k // least) >= BLOCKS:
            break
    splits = min(max(1, k // least), ceil(BUSY if gradient else BLOCKS, blocks))
    if gradient:
        splits = max(splits, ceil(k, LONGEST))
    chunk = ceil(ceil(k, splits), t["bk"]) * t["bk"]
    return Tiles(**t, splits=ceil(k, chunk), chunk=chunk)


def tile(
    m: int, n: int, k: int, height: int, width: int, itemsize: int, a_along_k: bool, b_along_k: bool, gradient: bool
) -> dict[str, Any]:
    """The threads of a block of at most height × width entries, and how many such blocks there are."""
    m_tiles = ceil(m, height)
    rows = ceil(m, m_tiles)
    rm = power_of_two(ceil(rows, 10))
    tm = ceil(rows, rm)
    tm += tm % 2 if tm > 1 else 0  # pairs are read from shared memory as one vector
    m_tiles = ceil(m, rm * tm)

    threads = 256 if gradient or rm >= 4 or width == 32 else 128  # width 32: blocks are few
    rn = 32 if gradient else min(width, max(32, threads // rm))  # 32: a warp lies along one row
    n_tiles = ceil(n, width)
    columns = ceil(n, n_tiles) if b_along_k else min(width, max(rn, power_of_two(n)))
    tn = ceil(columns, rn)
    n_tiles = ceil(n, rn * tn)
    slices = max(1, threads // (rm * rn))

    # As many steps of k at a time as a thread can hold of each matrix while it computes, at least eight: 24 registers
    # beside TM·TN sums and the addresses stay below the 128 with which two blocks of 256 threads run side by side.
    held = 48 // itemsize
    made = {"rm": rm, "rn": rn, "slices": slices, "tm": tm, "tn": tn, "m_tiles": m_tiles, "n_tiles": n_tiles}
    bk = 128
    while bk > 8 and bk > slices:
        t = Tiles(**made, bk=bk, splits=1, chunk=0)
        loads = max(t.tile) * bk / t.threads
        if loads <= held and bk // 2 < k and t.shared(itemsize, a_along_k, b_along_k) <= SHARED:
            break
        bk //= 2
    return {**made, "bk": bk}
