"""The mixes of providers nearest to many people in squared error, batched and certified.

Everything about one person is in her normal equations, which are as large as the number of
providers: a mix is found by pivots on them, however many items there are.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Columns that the chosen ones explain to this share, and gradients of this size, count as zero.
_DEPENDENT = 1e-10
_STATIONARY = 1e-13
# People whose normal equations are solved together: their tables should stay in the cache.
_PEOPLE = 32
# In the cone the bound holds for weights whose sum is up to this many times the one found, plus 1.
_REACH = 10.0


class Mixes(eqx.Module):
    """A mix of the providers per person, and what it proves in mean squared error.

    - `weights`: nonnegative; in the hull they sum to one.
    - `offset`: the constant added to the mix (0 if none is allowed).
    - `error`: root mean squared error, in units of the ratings.
    - `lower`: no other weights come nearer: in the hull none at all, in the cone none whose sum is
        at most 1 + 10 times the one found (convexity at the point found; nothing of the solver).
    - `kkt_residual`: largest violation of the optimality conditions (a negative gradient, or
        a positive one where the weight is not zero), relative to the provider's and her size.
    - `certified`: weights are feasible and error^2 - lower^2 is at most 1e-9 of the mean square of
        her values and the mix.
    """

    weights: Float[Array, "people providers"]
    offset: Float[Array, " people"]
    error: Float[Array, " people"]
    lower: Float[Array, " people"]
    kkt_residual: Float[Array, " people"]
    certified: Bool[Array, " people"]


def nonnegative_least_squares(
    matrix: Float[Array, "n n"], vector: Float[Array, " n"], allowed: Bool[Array, " n"]
) -> Float[Array, " n"]:
    """The x >= 0 that minimises x' matrix x / 2 - vector' x, zero where not allowed.

    An active-set method on the symmetric tableau (the sweep operator): each turn takes one
    variable in or out, as an operation on whole tables, so that `jax.vmap` batches it. The matrix
    must be positive semidefinite; variables that the chosen ones explain stay out.

    **Source:** Lawson, Hanson (1974), Solving Least Squares Problems, chapter 23; Goodnight (1979),
    A Tutorial on the SWEEP Operator.

    >>> import jax.numpy as jnp
    >>> print(nonnegative_least_squares(jnp.eye(2), jnp.array([1.0, -1.0]), jnp.ones(2, bool)))
    [1. 0.]
    """
    size = jnp.diagonal(matrix)
    allowed = allowed & (size > 0)
    size = jnp.sqrt(jnp.where(allowed, size, 1))
    table = jnp.where(allowed[:, None] & allowed[None], matrix, 0) / size[:, None] / size[None]
    right = jnp.where(allowed, vector, 0) / size
    unit = jnp.max(jnp.abs(right), initial=0.0)
    n = len(vector)

    def goes_on(carry):
        *_, done, step = carry
        return ~done & (step < 6 * n + 10)

    def turn(carry):
        swept, right_, x, chosen, _, step = carry
        blocked = chosen & (right_ <= 0)
        leaving = jnp.any(blocked)
        ratio = jnp.where(blocked, x / jnp.where(blocked, x - right_, 1), jnp.inf)
        ratio = jnp.where(blocked & (x <= 0), 0, ratio)
        length = jnp.where(leaving, jnp.min(ratio), 1)
        goal = jnp.where(chosen, right_, 0)
        x = jnp.where(chosen, jnp.maximum(x + length * (goal - x), 0), 0)
        spread = jnp.diagonal(swept)
        useful = allowed & ~chosen & (right_ > _STATIONARY * unit) & (spread > _DEPENDENT)
        gain = jnp.where(useful, right_**2 / jnp.where(useful, spread, 1), -1)
        at = jnp.where(leaving, jnp.argmin(ratio), jnp.argmax(gain))
        done = ~leaving & ~jnp.any(useful)
        # Pivot in (sign 1) or out (sign -1) on the entry `at`.
        here = jnp.arange(n) == at
        sign = jnp.where(leaving, -1.0, 1.0)
        pivot = jnp.where(done, 1, swept[at, at])
        line = swept[at] / pivot
        moved = swept - swept[at][:, None] * line[None]
        moved = jnp.where(here[:, None], sign * line[None], moved)
        moved = jnp.where(here[None], sign * line[:, None], moved)
        moved = jnp.where(here[:, None] & here[None], -1 / pivot, moved)
        last = right_[at] / pivot
        right_moved = jnp.where(here, sign * last, right_ - swept[at] * last)
        swept = jnp.where(done, swept, moved)
        right_ = jnp.where(done, right_, right_moved)
        x = jnp.where(here & leaving, 0, x)
        chosen = jnp.where(done, chosen, chosen ^ here)
        return swept, right_, x, chosen, done, step + 1

    start = table, right, jnp.zeros(n), jnp.zeros(n, bool), jnp.array(False), jnp.array(0)
    swept, _, x, chosen, _, _ = jax.lax.while_loop(goes_on, turn, start)
    # The tableau holds minus the inverse of the chosen block: it refines what the pivots rounded.
    both = chosen[:, None] & chosen[None]
    for _ in range(2):
        rest = jnp.where(chosen, right - table @ x, 0)
        x = jnp.where(chosen, jnp.maximum(x - jnp.where(both, swept, 0) @ rest, 0), 0)
    return x / size


def _normal_equations(values, mask, utilities, constant):
    """Means over one person's items: of products of utilities, with her values, and of her own."""
    count = jnp.maximum(jnp.sum(mask), 1)
    centre = constant * jnp.sum(mask * values) / count
    own = mask * (values - centre)
    middle = constant * (utilities @ mask) / count
    tables = utilities - middle[:, None]
    matrix = (tables * mask[None]) @ tables.T / count
    return matrix, tables @ own / count, jnp.sum(own**2) / count


def _hull_weights(matrix, vector, square, allowed):
    """Weights of sum one, as nonnegative least squares.

    With V = utilities - values, minimising |V'x|^2 + k (sum x - 1)^2 over x >= 0 and scaling x to
    sum one gives the shortest V'w: along a ray, the minimum grows with the length of V'w.
    """
    shifted = matrix - vector[:, None] - vector[None] + square
    # Any k > 0 will do; one of the size of the table keeps the digits.
    k = jnp.maximum(jnp.max(jnp.where(allowed, jnp.diagonal(shifted), 0)), 1e-30)
    x = nonnegative_least_squares(shifted + k, jnp.full_like(vector, k), allowed)
    return x / jnp.sum(x)


def mix_weights(
    values: Float[Array, "people items"],
    mask: Float[Array, "people items"],
    utilities: Float[Array, "providers items"],
    allowed: Bool[Array, "scenarios providers"],
    constant: Bool[Array, ""],
) -> dict[str, Float[Array, "scenarios people providers"]]:
    """Weights of four mixes of the allowed providers for each person, by her items in the mask.

    Keys: `cone` (nonnegative least squares), `hull` (weights of sum one), `mean` of the allowed
    providers and the best `single` one. `constant` says whether each mix may add a constant.
    Values outside the mask must be finite. `check_mix` says what the weights are worth.

    >>> import jax.numpy as jnp
    >>> table = jnp.array([[1.0, 2.0, 4.0], [3.0, 1.0, 0.0]])
    >>> mixes = mix_weights(2 * table[:1], jnp.ones((1, 3)), table, jnp.ones((1, 2), bool),
    ...                     jnp.array(False))
    >>> print(mixes["cone"].round(6), mixes["single"])
    [[[2. 0.]]] [[[1. 0.]]]
    """

    def person(inputs):
        own, seen = inputs
        matrix, vector, square = _normal_equations(own, seen, utilities, 1.0 * constant)

        def scenario(allowed):
            errors = jnp.diagonal(matrix) - 2 * vector
            best = jnp.argmin(jnp.where(allowed, errors, jnp.inf))
            return {
                "cone": nonnegative_least_squares(matrix, vector, allowed),
                "hull": _hull_weights(matrix, vector, square, allowed),
                "mean": allowed / jnp.sum(allowed),
                "single": 1.0 * (jnp.arange(len(vector)) == best),
            }

        return jax.lax.map(scenario, allowed)

    found = jax.lax.map(person, (values, mask), batch_size=_PEOPLE)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1), found)


def root_mean_square(
    values: Float[Array, "people items"],
    fitted: Float[Array, "people items"],
    tested: Float[Array, "people items"],
    utilities: Float[Array, "providers items"],
    weights: Float[Array, "people providers"],
    constant: Bool[Array, ""],
) -> tuple[Float[Array, " people"], Float[Array, " people"], Float[Array, "people items"]]:
    """Error on the items `tested`, the offset that fits the items `fitted`, and the residuals."""
    rest = values - weights @ utilities
    offset = constant * jnp.sum(fitted * rest, axis=1) / jnp.maximum(jnp.sum(fitted, axis=1), 1)
    rest = rest - offset[:, None]
    square = jnp.sum(tested * rest**2, axis=1) / jnp.maximum(jnp.sum(tested, axis=1), 1)
    return jnp.sqrt(square), offset, rest


def check_mix(
    values: Float[Array, "people items"],
    mask: Float[Array, "people items"],
    utilities: Float[Array, "providers items"],
    weights: Float[Array, "people providers"],
    allowed: Bool[Array, " providers"],
    constant: Bool[Array, ""],
    *,
    hull: bool,
) -> Mixes:
    """What given weights prove, from the residuals alone."""
    error, offset, rest = root_mean_square(values, mask, mask, utilities, weights, constant)
    count = jnp.maximum(jnp.sum(mask, axis=1), 1)
    gradient = -2 * (mask * rest) @ utilities.T / count[:, None]
    least = jnp.min(jnp.where(allowed[None], gradient, jnp.inf), axis=1)
    along = jnp.sum(gradient * weights, axis=1)
    total = jnp.sum(weights, axis=1)
    # f(v) >= f(w) + gradient . (v - w) for every v; the least of it over the hull, or the cone.
    bound = least if hull else jnp.minimum(least, 0) * (1 + _REACH * total)
    # Convexity makes the gap nonnegative but for rounding.
    gap = jnp.maximum(along - bound, 0)
    lower = jnp.sqrt(jnp.maximum(error**2 - gap, 0))
    square = jnp.sum(mask * (values**2 + (weights @ utilities) ** 2), axis=1) / count
    sizes = jnp.sqrt(mask @ (utilities**2).T / count[:, None])
    unit = jnp.sqrt(square)[:, None] * sizes
    unit = jnp.where(unit > 0, unit, 1)
    level = along[:, None] if hull else 0.0
    slack = gradient - level
    wrong = jnp.where(weights > 0, jnp.abs(slack), jnp.maximum(-slack, 0)) / unit
    kkt = jnp.max(jnp.where(allowed[None], wrong, 0), axis=1)
    feasible = jnp.all((weights >= 0) & (allowed[None] | (weights == 0)), axis=1)
    if hull:
        feasible &= jnp.abs(total - 1) <= 1e-12
    certified = feasible & jnp.isfinite(gap) & (gap <= 1e-9 * square)
    return Mixes(weights, offset, error, jnp.minimum(lower, error), kkt, certified)
