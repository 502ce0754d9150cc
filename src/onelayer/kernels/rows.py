"""What kernels do to a few rows at a time, while these are in the cache."""

from .compile import lent
from .lanes import dense, fill, lanes, load, store


@lent
def add(rows, more):
    for i in range(rows.shape[0]):
        row, other = dense(rows[i]), dense(more[i])
        for j in range(row.size):
            row[j] += other[j]


@lent
def add_up(rows, sums):
    """Rows of whole lanes, to sums [1 N]."""
    for i in range(rows.shape[0]):
        for j in range(0, rows.shape[1], lanes(rows)):
            store(sums, 0, j, load(sums, 0, j) + load(rows, i, j))


@lent
def clear(rows):
    """Rows of whole lanes."""
    for i in range(rows.shape[0]):
        for j in range(0, rows.shape[1], lanes(rows)):
            store(rows, i, j, fill(rows.dtype.type(0)))


@lent
def copy(rows, there):
    for i in range(rows.shape[0]):
        row, to = dense(rows[i]), dense(there[i])
        for j in range(row.size):
            to[j] = row[j]
