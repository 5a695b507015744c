"""Convolutions straight from images in shared memory: where that is better than a product of matrices, and its blocks.

The product of ``products.cu`` finds each entry of a patch in memory by itself, some 24 instructions for what then
serves a handful of channels. ``correlation.cu`` and ``switching.cu`` copy an image once and read all patches from there
(``images.cu``). Of the ways to cut their work into blocks the one with the least ``cost`` is taken, and it is taken at
all if that is less than the cost of the product of matrices (``preferred``). Windows of one pixel have no patches, and
windows that do not fit have no blocks; both stay with the product. All of it follows from the shapes alone, never from
the device.

The cost is a number of cycles of the busiest scheduler: an instruction for each multiplication with addition and each
number or vector read from shared memory, or as long as the four schedulers wait for the memory that they share; the
instructions of copying, as counted in compiled kernels; and a wait whenever a block needs what is not there yet. Of
the memory's rows of 32 banks, neighbouring pixels of a warp are two (the rows of an image are not 32 long), a vector
that all threads read is two, and vectors of different pieces are four. It compares; it does not predict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import NamedTuple

from pmp_ref.kernels.cuda.source import ceil
from pmp_ref.kernels.cuda.tiles import LONGEST, SHARED, Tiles

MULTIPROCESSORS = 132  # of an H100, with four schedulers each
MEMORY = 224 * 1024  # bytes of shared memory of each
WARPS = 2  # of a scheduler, which keep it busy
WAIT = 600  # cycles until what is copied has come
GATHER = 24  # instructions that find and copy one entry of a patch
PARTIAL = 500  # bytes of partial sums written and read in a cycle
MOST = 256  # threads of a block
RESIDENT = 128  # bytes of shared memory for each thread, with which enough blocks run side by side
SUMS = {4: (48, 72), 8: (24, 36)}  # that a thread holds of a correlation and of a switching function, by itemsize
HELD = {4: 104, 8: 52}  # sums and pixels of a switching function
UNROLLED = 768  # multiplications of one channel without a loop


class Axis(NamedTuple):
    """One image axis of to[h] = Σ_s weight[s] · from[h·step + s·dilation − before], ``spread`` − 1 zeros put between
    the entries of ``from``."""

    start: int  # entries of from
    end: int  # entries of to
    kernel: int
    step: int
    spread: int
    dilation: int
    before: int

    def seen(self, n: int) -> int:
        """Entries of ``from`` between the first and the last that n neighbours of ``to`` meet."""
        return (n - 1) * self.step + (self.kernel - 1) * self.dilation + 1

    def met(self, n: int) -> int:
        """How many n neighbours of ``to`` meet."""
        return len({j * self.step + s * self.dilation for j in range(n) for s in range(self.kernel)})


class Problem(NamedTuple):
    """A correlation as in ``images.cu``, with channels m and k of a group."""

    m: int
    k: int
    groups: int
    rows: Axis
    columns: Axis
    turned: bool

    @property
    def taps(self) -> int:
        """Entries of the window."""
        return self.rows.kernel * self.columns.kernel

    def macros(self) -> dict[str, int]:
        """Of the source."""
        made = {"M_SIZE": self.m, "K_SIZE": self.k, "GROUPS": self.groups, "TURNED": int(self.turned)}
        for name, axis in (("ROW", self.rows), ("COLUMN", self.columns)):
            made |= {
                f"FROM_{name}S": axis.start,
                f"TO_{name}S": axis.end,
                f"KERNEL_{name}S": axis.kernel,
                f"{name}_STEP": axis.step,
                f"{name}_SPREAD": axis.spread,
                f"{name}_DILATION": axis.dilation,
                f"{name}_BEFORE": axis.before,
            }
        return made


@dataclass(frozen=True)
class Direct:
    """The macros of the source, how many blocks and threads run, bytes of shared memory, and the cost.

    Of a switching function: into how many ``units`` the positions are cut, ``chunk`` for each of ``splits`` blocks.
    """

    macros: tuple[tuple[str, int], ...]
    blocks: int
    threads: int
    shared: int
    cost: float
    units: int = 1
    chunk: int = 1
    splits: int = 1


def preferred(direct: Direct, matrix: float) -> bool:
    """Whether the direct kernel is taken instead of a product of matrices of that cost."""
    return direct.cost < matrix


def issued(multiplications: int, others: int, rows: int, itemsize: int) -> int:
    """Cycles in which a scheduler issues these instructions of a warp, which read so many rows of 32 banks: in float64
    a multiplication takes two, and a number lies in two banks."""
    return max(itemsize // 4 * multiplications + others, itemsize * rows)


def busiest(instructions: float, waits: float, blocks: int, threads: int, shared: int = 1) -> float:
    """Cycles of the busiest scheduler, if each of the threads takes so many instructions and waits so many times;
    ``shared``: bytes of a block."""
    warps, blocks = ceil(threads, 32) / 4, ceil(blocks, MULTIPROCESSORS)
    together = warps * min(blocks, max(1, MEMORY // shared))
    return instructions * warps * blocks * max(1, WARPS / together) + WAIT * waits


def matrix_cost(t: Tiles, groups: int, entries: int, itemsize: int) -> float:
    """Cost of a product of ``groups`` matrices with so many entries in all."""
    rows, columns = t.tile
    loads = ceil(rows * t.bk, t.threads) + ceil(columns * t.bk, t.threads)
    weights = ceil(t.tm * itemsize, 16)
    step = issued(t.tm * t.tn, t.tn + weights, t.tn + 2 * weights, itemsize)
    once = 100 + 4 * t.tm * t.tn * (1 + t.slices.bit_length())
    tiles, blocks = ceil(t.chunk, t.bk), t.m_tiles * t.n_tiles * groups * t.splits
    instructions = tiles * (t.bk // t.slices * step + GATHER * loads) + once
    return busiest(instructions, tiles, blocks, t.threads) + partial_cost(t.splits, entries, itemsize)


def partial_cost(splits: int, entries: int, itemsize: int) -> float:
    """Cost of the launch that adds partial sums."""
    return 3 * WAIT + splits * entries * itemsize / PARTIAL if splits > 1 else 0


def heights(n: int, most: int) -> list[int]:
    """Heights up to ``most`` of equal parts of n, one for each number of parts."""
    return sorted({ceil(n, ceil(n, h)) for h in range(1, min(n, most) + 1)})


def odd(n: int) -> int:
    """n or n + 1: rows of that length begin in different banks of shared memory."""
    return n | 1


def vectors(tm: int, m_threads: int) -> tuple[int, int]:
    """TM_PITCH·M_THREADS and M_PITCH of the source."""
    lines = ceil(tm, 4) * 4 * m_threads
    return lines, lines if lines % 8 else lines + 4


@lru_cache(maxsize=4096)
def correlation(q: Problem, batch: int, itemsize: int) -> Direct | None:
    """The best blocks for A(x, k) or A(·, k)*p; None if there are none."""
    return min(correlations(q, batch, itemsize), key=lambda d: d.cost, default=None)


def correlations(q: Problem, batch: int, itemsize: int) -> Iterator[Direct]:
    """The ways to cut a correlation into blocks."""
    for tm, tn in product(heights(q.m, 10), heights(q.rows.end, 8)):
        if tm * tn > SUMS[itemsize][0] or q.taps == 1:
            continue
        for m_threads, strips in product((1, 2, 4, 8, 16), heights(ceil(q.rows.end, tn), 16)):
            if (m_threads - 1) * tm >= q.m:
                continue
            several = (1, 2, 4, 8) if strips * tn >= q.rows.end else (1,)
            for samples, slices in product(several, (1, 2, 4)):
                found = cut_correlation(q, batch, itemsize, tm, tn, m_threads, strips, samples, slices)
                if found is not None:
                    yield found


def cut_correlation(
    q: Problem, batch: int, itemsize: int, tm: int, tn: int, m_threads: int, strips: int, samples: int, slices: int
) -> Direct | None:
    """The blocks with the macros of these names; None if they do not fit."""
    lines = m_threads * strips * samples * slices
    columns = min(q.columns.end, MOST // lines)
    if columns < 1 or (samples > 1 and (samples > batch or columns < q.columns.end)):
        return None
    columns = ceil(q.columns.end, ceil(q.columns.end, columns))
    threads = ceil(lines * columns, 32) * 32
    rows, wide = q.rows.seen(strips * tn), q.columns.seen(columns)
    m_lines, m_pitch = vectors(tm, m_threads)
    each = itemsize * (samples * rows * odd(wide) + q.taps * m_pitch)
    channels = min(q.k, RESIDENT * threads // each or (SHARED - 16) // each)
    chunks = ceil(q.k, max(1, channels))
    if channels < 1 or ceil(q.k, chunks) < slices:
        return None
    channels = ceil(q.k, chunks)
    shared = max(channels * each, itemsize * (slices // 2) * (lines // slices) * columns * tm * tn)

    reads, weights = q.columns.kernel * q.rows.met(tn), q.taps * ceil(tm * itemsize, 16)
    compute = issued(q.taps * tm * tn, reads + weights + 8, 2 * reads + 2 * weights, itemsize)
    copy = ceil(samples * rows * wide, threads) * (40 + 3 * channels)
    copy += ceil(channels * q.taps, threads // 4) * (12 + m_lines)
    blocks = q.groups * ceil(q.m, m_threads * tm) * ceil(batch, samples)
    blocks *= ceil(q.rows.end, strips * tn) * ceil(q.columns.end, columns)
    once = 100 + 4 * tm * tn * slices.bit_length()
    instructions = chunks * (copy + ceil(channels, slices) * compute) + once
    cost = busiest(instructions, chunks, blocks, threads, shared)
    macros = {
        **q.macros(),
        "TM": tm,
        "TN": tn,
        "M_THREADS": m_threads,
        "STRIPS": strips,
        "SLICES": slices,
        "SAMPLES": samples,
        "ROWS": strips * tn,
        "COLUMNS": columns,
        "PITCH": odd(wide),
        "CHANNELS": channels,
        "THREADS": threads,
        "UNROLL": q.columns.kernel if q.taps * tm * tn <= UNROLLED else 1,
    }
    return Direct(tuple(macros.items()), blocks, threads, shared, cost)


@lru_cache(maxsize=4096)
def switching(q: Problem, batch: int, itemsize: int) -> Direct | None:
    """The best blocks for A(x, ·)*p; None if there are none."""
    return min(switchings(q, batch, itemsize), key=lambda d: d.cost, default=None)


def switchings(q: Problem, batch: int, itemsize: int) -> Iterator[Direct]:
    """The ways to cut a switching function into blocks."""
    pieces = sorted(range(1, 9), key=lambda n: (ceil(q.columns.end, n) * (n + 1), n))[:2]  # few left over, few reads
    tap_rows = [n for n in (1, 2, 3, 5, 7) if q.rows.kernel % n == 0]
    for tm, taps, piece in product(heights(q.m, 10), tap_rows, pieces):
        sums = tm * taps * q.columns.kernel
        if q.taps == 1 or sums > SUMS[itemsize][1] or sums + taps * q.columns.met(piece) > HELD[itemsize]:
            continue
        for m_threads, channels in product((1, 2, 4, 8), heights(q.k, 16)):
            if (m_threads - 1) * tm >= q.m or m_threads * channels * (q.rows.kernel // taps) > MOST:
                continue
            for rows in heights(q.rows.end, q.rows.end):
                for samples in (1, 2, 4) if rows == q.rows.end else (1,):
                    yield from cut_switching(q, batch, itemsize, tm, taps, piece, m_threads, channels, rows, samples)


def cut_switching(
    q: Problem,
    batch: int,
    itemsize: int,
    tm: int,
    tap_rows: int,
    piece: int,
    m_threads: int,
    channels: int,
    rows: int,
    samples: int,
) -> Iterator[Direct]:
    """The blocks with the macros of these names, for some numbers of splits; none if they do not fit."""
    slice_threads = m_threads * channels * (q.rows.kernel // tap_rows)
    row_pieces = ceil(q.columns.end, piece)
    pieces, columns = samples * rows * row_pieces, row_pieces * piece
    slices = min(MOST // slice_threads, pieces)
    threads = max(64, ceil(slices * slice_threads, 32) * 32)
    high, wide = q.rows.seen(rows), q.columns.seen(columns)
    m_lines, m_pitch = vectors(tm, m_threads)
    taps = tap_rows * q.columns.kernel
    piece_pitch = piece * m_pitch // 8 * 8 + 4
    room = RESIDENT * MOST
    sum_rows = min(tm, room // (itemsize * threads * taps))
    shared = itemsize * max(
        pieces * piece_pitch + channels * samples * high * odd(wide), threads, slices * slice_threads * sum_rows * taps
    )
    if samples > batch or sum_rows < 1 or shared > room or m_lines > threads:
        return

    reads, costates = tap_rows * q.columns.met(piece), piece * ceil(tm * itemsize, 16)
    compute = issued(piece * taps * tm, reads + costates + 16, 2 * reads + 4 * costates, itemsize)
    unit = ceil(pieces, slices) * compute + ceil(samples * high * wide, threads) * (40 + 3 * channels)
    unit += ceil(pieces * piece, threads) * (30 + 4 * m_lines) + ceil(pieces, threads // m_lines) * (4 + 2 * piece)
    once = 200 + 2 * tm * taps + ceil(slice_threads * tm * taps, threads) * (30 + 2 * slices)
    units = ceil(batch, samples) * ceil(q.rows.end, rows)
    parts = q.groups * ceil(q.m, m_threads * tm) * ceil(q.k, channels)
    least = ceil(units * pieces * piece, slices * LONGEST)
    macros = {
        **q.macros(),
        "TM": tm,
        "TAP_ROWS": tap_rows,
        "PIECE": piece,
        "M_THREADS": m_threads,
        "CHANNELS": channels,
        "ROWS": rows,
        "SAMPLES": samples,
        "COLUMNS": columns,
        "PITCH": odd(wide),
        "SLICES": slices,
        "THREADS": threads,
        "SUM_ROWS": sum_rows,
    }
    for waves in (1, 2, 4, 8):
        chunk = ceil(units, max(least, min(units, max(1, waves * MULTIPROCESSORS // parts))))
        splits = ceil(units, chunk)
        cost = busiest(once + chunk * unit, chunk + 1, parts * splits, threads, shared)
        cost += partial_cost(splits, q.groups * q.m * q.k * q.taps, itemsize)
        yield Direct(tuple(macros.items()), parts * splits, threads, shared, cost, units, chunk, splits)
