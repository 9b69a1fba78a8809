"""Infinitesimals that break ties in pivoting methods."""

import math

import numpy as np
from jaxtyping import Float, Int


def _primes(count: int) -> Int[np.ndarray, " count"]:
    most = 15 if count < 6 else math.ceil(count * math.log(count * math.log(count)))
    is_prime = np.arange(most + 1) > 1
    for number in range(2, math.isqrt(most) + 1):
        is_prime[number * number :: number] &= not is_prime[number]
    return np.flatnonzero(is_prime)[:count]


def infinitesimals(count: int) -> Float[np.ndarray, " count"]:
    """Fixed irrational numbers between 1/2 and 3/2: square roots of primes without their integers.

    No combination of them with rational weights is rational (Besicovitch 1940), so different sums
    are never equal. What ties is compared again as if right-hand sides had been changed by an
    infinitesimal multiple of these.

    **Source:** Charnes (1952), Optimality and degeneracy in linear programming.

    >>> print(infinitesimals(3).round(3))
    [0.914 1.232 0.736]
    """
    return 0.5 + np.modf(np.sqrt(_primes(count)))[0]
