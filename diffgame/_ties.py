"""Infinitesimals that break ties in pivoting methods."""

import numpy as np
from jaxtyping import Float


def infinitesimals(count: int) -> Float[np.ndarray, " count"]:
    """Fixed irrational numbers between 1/2 and 3/2: different sums of them are never equal.

    What ties is compared again as if right-hand sides had been changed by an infinitesimal multiple
    of these.

    **Source:** Charnes (1952), Optimality and degeneracy in linear programming.

    >>> print(infinitesimals(2).round(3))
    [0.914 0.964]
    """
    numbers = np.arange(1, count + 1)
    return 0.5 + np.modf(numbers * np.sqrt(numbers + 1))[0]
