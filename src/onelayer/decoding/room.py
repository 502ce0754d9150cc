"""Appending without copying: on NumPy, what is kept of a sequence lies in memory with room for what comes.

    append(kept, more)     both, one after the other along axis 1; the values are those of `concat`

A list grows in the same way: where the memory is full it is exchanged for one twice as large, so that n tokens cost n
copies in all and not n². `kept` is never changed: it sees its own tokens only, and whoever appends to it a second time
(two continuations of one beginning) finds the place behind it taken, and gets a copy. All other arrays are joined.
"""

import numpy as np

from ..arrays import Array, array_namespace

__all__ = ["append"]

LEAST = 32  # tokens that there is room for


class Room(np.ndarray):
    """[B capacity …]; the first `taken` tokens are somebody's."""

    taken = 0


def append(kept: Array, more: Array) -> Array:
    if type(kept) is not np.ndarray or type(more) is not np.ndarray or kept.dtype != more.dtype:
        return array_namespace(kept).concat([kept, more], axis=1)
    S, n, room = kept.shape[1], more.shape[1], _room(kept)
    if room is None or room.taken != S or room.shape[1] < S + n:
        room = Room((len(kept), max(LEAST, 2 * (S + n)), *kept.shape[2:]), kept.dtype)
        whole = room.view(np.ndarray)
        whole[:, :S] = kept
    else:
        whole = kept.base
    assert whole is not None
    whole[:, S : S + n] = more
    room.taken = S + n
    return whole[:, : S + n]


def _room(kept: np.ndarray) -> Room | None:
    """What these are the first tokens of: all its sequences, in its order."""
    whole = kept.base
    room = whole.base if isinstance(whole, np.ndarray) else None
    if not isinstance(room, Room) or kept.strides != room.strides or kept.ctypes.data != room.ctypes.data:
        return None
    return room if (len(kept), kept.shape[2:]) == (len(room), room.shape[2:]) else None
