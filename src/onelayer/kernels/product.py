"""Matrix products of many rows with a layer's weights, a tile of the result at a time in the processor's registers.

Shapes    multiply   a [M K]     b [K N]     bias [N] or None     c = a b + bias [M N]
          outer      a [K M]     b [K N]     c = aᵀ b [M N]

Tile      ROWS rows of c, as wide as lanes.py has it: c += a[:, k] b[k], one k after the other, all sums in registers.
Panels    b cut into columns as wide as a tile, each column's numbers side by side, so that they stream: weights, small
          and met by every row. What has as many rows as a batch is read where it lies.
Rest      A tile is never narrower than `lanes`, and a column or two beyond whole ones would cost as much as those:
          each of its numbers is summed along k instead. `outer` is taken turned, (bᵀ a)ᵀ, where that pads less.
Blocks    of rows, or of k, such that what a tile reads has not left the caches since the last one.

Why       BLAS arranges both factors anew at every call, and is made for larger ones than a layer's: of 128 × 512 and
          the like this takes an eighth less time (docs/performance.md), and what follows a product can be done on each
          block of rows while it is in the cache (feed_forward.py).

Small products are BLAS's, and so are those of arrays that lie with gaps.
"""

from typing import Any

import numpy as np

from ..arrays import aligned
from .compile import lent, spread, strided
from .lanes import broad, broad_each, broad_load, column, dense, each, lanes, load, store

__all__ = ["cut", "multiply", "multiply_rows", "outer", "outer_rows", "panels", "whole", "widened"]

ROWS = 6
BLOCK = 96  # rows: of a, or of both factors of `outer`
DEEP = 256  # numbers of a column of b
FEW = 2  # columns beyond whole lanes that no tile is filled up for
WORTHWHILE = 1 << 18  # multiplications below which arranging and calling cost more than they bring


def _of(load: Any, each: Any) -> Any:
    @lent
    def tile(c, a, b, start):
        """ROWS rows c = start + Σ a[:, k] b[k]. start: one row for all, or c. Of fewer, the last is done again."""
        end, whole = c.shape[0] - 1, start.shape[0] > 1
        i1, i2, i3, i4, i5 = min(1, end), min(2, end), min(3, end), min(4, end), min(5, end)
        s1, s2, s3, s4, s5 = (i1, i2, i3, i4, i5) if whole else (0, 0, 0, 0, 0)
        c0, c1, c2 = load(start, 0, 0), load(start, s1, 0), load(start, s2, 0)
        c3, c4, c5 = load(start, s3, 0), load(start, s4, 0), load(start, s5, 0)
        for k in range(b.shape[0]):
            row = load(b, k, 0)
            c0 = c0 + each(a, 0, k) * row
            c1 = c1 + each(a, i1, k) * row
            c2 = c2 + each(a, i2, k) * row
            c3 = c3 + each(a, i3, k) * row
            c4 = c4 + each(a, i4, k) * row
            c5 = c5 + each(a, i5, k) * row
        store(c, 0, 0, c0)
        store(c, i1, 0, c1)
        store(c, i2, 0, c2)
        store(c, i3, 0, c3)
        store(c, i4, 0, c4)
        store(c, i5, 0, c5)

    return tile


_broad_tile, _tile = _of(broad_load, broad_each), _of(load, each)


# ------------------------------------------------------------------------------------------ inside kernels


@lent
def multiply_rows(a, c, panels, start):
    """c = start + a b; start [1, N], for every row, or as many rows. As many columns of a as b has rows."""
    width, K = panels.shape[2], panels.shape[1]
    for top in range(0, c.shape[0], BLOCK):
        end = min(top + BLOCK, c.shape[0])
        for k in range(0, K, DEEP):
            for q in range(panels.shape[0]):
                j = q * width
                whole, b = c.shape[1] - j >= width, panels[q, k : k + DEEP]
                for i in range(top, end, ROWS):
                    out, rows = c[i:end, j:], a[i:end, k:]
                    since = out if k else start[i if start.shape[0] > 1 else 0 :, j:]
                    if whole:
                        _broad_tile(out, rows, b, since)
                    else:
                        _tile(out, rows, b, since)


@lent
def _few_columns(a, c, turned, start):
    """c = start + a b; turned: bᵀ, a row for each column of c."""
    for j in range(c.shape[1]):
        weights = dense(turned[j])
        for i in range(c.shape[0]):
            row, total = dense(a[i]), start[0, j]
            for k in range(weights.size):
                total += row[k] * weights[k]
            c[i, j] = total


@lent
def outer_rows(a, c, b, start):
    """c = start + a b, a [M K] read along its columns; start: [1, N] for every row, or c."""
    width, N = broad(c), c.shape[1]
    for k in range(0, b.shape[0], BLOCK):
        for i in range(0, c.shape[0], ROWS):
            for j in range(0, N, width):
                out, rows, columns = c[i:, j:], a[i:, k:], b[k : k + BLOCK, j:]
                since = out if k else start[min(i, start.shape[0] - 1) :, j:]
                if N - j >= width:
                    _broad_tile(out, rows, columns, since)
                else:
                    _tile(out, rows, columns, since)


@lent
def _arrange(b, panels):
    """Rows of b, cut into panels."""
    width, n = panels.shape[2], lanes(b)
    for j in range(0, b.shape[1] // n * n, n):
        panel, place = panels[j // width], j % width
        if b.strides[1] == b.itemsize:
            for k in range(b.shape[0]):
                store(panel, k, place, load(b, k, j))
        else:
            columns = b[:, j : j + n].T
            for k in range(b.shape[0]):
                store(panel, k, place, column(columns, k))
    for j in range(b.shape[1] // n * n, b.shape[1]):
        for k in range(b.shape[0]):
            panels[j // width, k, j % width] = b[k, j]


# ------------------------------------------------------------------------------------------ outside


@strided(2, 2, 3, 2, 2)
def _multiply(first, part, a, c, panels, rest, start):
    N = c.shape[1] - rest.shape[0]
    multiply_rows(a, c[:, :N], panels, start)
    _few_columns(a, c[:, N:], rest, start[:, N:])


@strided(2, 2, 2, 2)
def _outer(first, part, a, c, b, start):
    outer_rows(a, c, b, start)


@strided(2, 3)
def _panels(first, part, b, panels):
    _arrange(b, panels)


def whole(n: int, dtype: Any) -> int:
    """n, rounded up to whole lanes."""
    step = lanes(np.empty(0, dtype))
    return -(-n // step) * step


def widened(a: Any) -> np.ndarray:
    """With zeros to the right until the rows are whole lanes; itself, if they are."""
    N = whole(a.shape[-1], a.dtype)
    if a.shape[-1] == N:
        return a
    wide = np.zeros((*a.shape[:-1], N), a.dtype)
    wide[..., : a.shape[-1]] = a
    return wide


def panels(b: Any) -> np.ndarray:
    """b [K N] as [n K width], zeros beyond its last column."""
    (K, N), width = b.shape, broad(b)
    found = aligned((-(-N // width), K, width), b.dtype)
    if N % width:
        found[-1] = 0
    _panels(0, 0, b, found)
    return found


def cut(c: Any, N: int) -> np.ndarray:
    """The first N columns, without gaps."""
    return c if c.shape[1] == N else np.ascontiguousarray(c[:, :N])


def multiply(a: Any, b: Any, bias: Any = None) -> np.ndarray:
    """a b + bias."""
    (M, K), N = a.shape, b.shape[1]
    if M * K * N < WORTHWHILE or not (_whole_rows(a) and _kinds(a, b)):
        c = a @ b
        if bias is not None:
            c += bias
        return c
    beyond = N % whole(1, a.dtype)
    tiled = N - beyond if beyond <= FEW else N
    tiles, rest = panels(b[:, :tiled]), np.ascontiguousarray(b[:, tiled:].T)
    start = np.zeros((1, whole(tiled, a.dtype) + len(rest)), a.dtype)
    start[0, :N] = 0 if bias is None else bias
    c = aligned((M, start.shape[1]), a.dtype)
    spread(_multiply, M * N, (a, c), (tiles, rest, start))
    return cut(c, N)


def outer(a: Any, b: Any) -> np.ndarray:
    """aᵀ b, of as many rows each."""
    (K, M), N = a.shape, b.shape[1]
    if M * K * N < WORTHWHILE or not (_whole_rows(a, b) and _kinds(a, b)):
        return a.T @ b
    if M * whole(N, a.dtype) > N * whole(M, a.dtype):
        return np.ascontiguousarray(outer(b, a).T)
    b = widened(b)
    c = aligned((M, b.shape[1]), a.dtype)
    spread(_outer, K * N, (a.T, c), (b, np.zeros((1, b.shape[1]), a.dtype)))
    return cut(c, N)


def _whole_rows(*arrays: Any) -> bool:
    return all(a.strides[1] == a.itemsize for a in arrays)


def _kinds(a: Any, b: Any) -> bool:
    return a.dtype == b.dtype and a.dtype in (np.float32, np.float64)
