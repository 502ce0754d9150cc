"""Fourier analysis over the numbers mod p: how much of a table with a row for each number lies at each frequency.

Shapes    table W [n *rest]     power [n//2 + 1]

Power     power[k] = Σ over *rest of (W·c_k)² + (W·s_k)², in the orthonormal basis c_0 = 1/√n,
          c_k = √(2/n) cos 2πka/n,  s_k = √(2/n) sin 2πka/n;  for even n the last is c = ±1/√n alone
          Parseval: Σ_k power[k] = Σ W².

Products  Multiplication of 1..p−1 mod a prime p is addition of discrete logarithms: there a is not the number but its
          logarithm, that is, the rows are taken in the order of the powers of a primitive root.

Source    Nanda et al. 2023, arXiv:2301.05217, section 4.1.
"""

import numpy as np


def power(table: np.ndarray) -> np.ndarray:
    n = table.shape[0]
    waves = np.fft.rfft(table, axis=0, norm="ortho").reshape(n // 2 + 1, -1)
    twins = np.full(n // 2 + 1, 2.0)  # k and n − k are one frequency; 0 and n/2 are their own twins
    twins[0] = 1.0
    if n % 2 == 0:
        twins[-1] = 1.0
    return twins * np.sum(np.abs(waves) ** 2, axis=1)


def powers_of_a_root(p: int) -> np.ndarray:
    """1, g, g², … mod the prime p, for its smallest primitive root g: each of 1..p−1 once."""
    for g in range(1, p):
        found = [1]
        while len(found) < p and (next_power := found[-1] * g % p) != 1:
            found.append(next_power)
        if len(found) == p - 1:
            return np.array(found)
    raise ValueError(f"{p} is not a prime, so no number's powers run through 1..{p - 1}")
