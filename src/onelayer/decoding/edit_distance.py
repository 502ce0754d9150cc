"""The Levenshtein distance: the fewest insertions, deletions and substitutions that make one sequence into another.

Method    The table of distances, D[i, j] between the first i of `a` and the first j of `b`, changes by −1, 0 or +1 from
          cell to cell. So a column is two bit-vectors, of where it rises (`up`) and where it falls (`down`), and one
          column follows from the one before by a handful of operations on whole integers, whatever the length of `a`.

Source    Levenshtein 1966; Myers 1999, doi:10.1145/316542.316550, in the form of Hyyrö 2003,
          "A bit-vector algorithm for computing Levenshtein and Damerau edit distances" (whole sequences, not a search).
"""

from collections.abc import Hashable, Sequence

__all__ = ["distance", "nearest"]


def distance(a: Sequence[Hashable], b: Sequence[Hashable]) -> int:
    """How many single edits lie between a and b."""
    if not a or not b:
        return len(a) + len(b)
    places: dict[Hashable, int] = {}  # of each symbol in a, as bits
    for i, symbol in enumerate(a):
        places[symbol] = places.get(symbol, 0) | 1 << i
    all_bits, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    up, down, score = all_bits, 0, len(a)
    for symbol in b:
        here = places.get(symbol, 0)
        diagonal = (((here & up) + up) ^ up) | here | down
        right_up = down | ~(diagonal | up) & all_bits
        right_down = diagonal & up
        score += (right_up & last != 0) - (right_down & last != 0)
        right_up = right_up << 1 | 1
        up = (right_down << 1 | ~(diagonal | right_up)) & all_bits
        down = right_up & diagonal & all_bits
    return score


def nearest(said: Sequence[Hashable], references: Sequence[Sequence[Hashable]]) -> tuple[int, int]:
    """The distance to the nearest reference, and that reference's length; of equally near ones, the first."""
    return min(((distance(said, right), len(right)) for right in references), key=lambda found: found[0])
