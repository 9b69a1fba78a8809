"""What a user may choose from."""

import abc
import math

import equinox as eqx
import jax.core
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from ._constraints import Constraints


class AbstractChoiceSet(eqx.Module):
    """A set of choices of one user."""

    @abc.abstractmethod
    def centre(self) -> Float[Array, "..."]:
        """A choice well inside the set; it fixes the shape of every choice.

        For an `AbstractConstrainedSet` merely where the search starts, inside or not.
        """


class AbstractConvexSet(AbstractChoiceSet):
    """A convex set with a cheap projection and a cheap linear maximum (for `Concave`)."""

    @abc.abstractmethod
    def project(self, choice: Float[Array, "..."]) -> Float[Array, "..."]:
        """The nearest point of the set, in the Euclidean norm."""

    @abc.abstractmethod
    def support(self, gradient: Float[Array, "..."]) -> Float[Array, ""]:
        """The largest inner product of `gradient` with a member of the set."""


class AbstractConstrainedSet(AbstractChoiceSet):
    """A convex set of vectors given by its constraints (for `Concave`).

    Which of them bind, their multipliers, and whether any choice satisfies them at all is for
    `solve_user_problem` to find out.
    """

    @abc.abstractmethod
    def constraints(self, choice: Float[Array, " coordinates"]) -> Constraints:
        """Values at `choice`: inequalities convex in it, equalities affine."""


class AbstractFiniteSet(AbstractChoiceSet):
    """Finitely many decisions in a row, with moves of nature in between (`Argmax`, `Logit`).

    A choice is an array of shape `shape`, one number per leaf: the probability that her own
    decisions lead there, given that nature does. Utility must be linear in it.
    """

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Number of moves at each level, first move first."""

    @property
    @abc.abstractmethod
    def decides(self) -> tuple[bool, ...]:
        """For each level, whether the user moves there (else nature does)."""


class Simplex(AbstractConvexSet, AbstractFiniteSet):
    """Probability vectors over `size` options.

    >>> from diffgame import Simplex
    >>> import jax.numpy as jnp
    >>> print(Simplex(2).project(jnp.array([2.0, 1.0])))
    [1. 0.]
    """

    size: int = eqx.field(static=True)

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"Simplex: size is {self.size}; it must be at least 1.")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    @property
    def decides(self) -> tuple[bool, ...]:
        return (True,)

    def centre(self) -> Float[Array, " size"]:
        return jnp.full(self.size, 1 / self.size)

    def project(self, choice: Float[Array, " size"]) -> Float[Array, " size"]:
        return optax.projections.projection_simplex(choice)

    def support(self, gradient: Float[Array, " size"]) -> Float[Array, ""]:
        return jnp.max(gradient)


class Box(AbstractConvexSet):
    """Vectors between `lower` and `upper`, both finite, coordinate by coordinate.

    >>> from diffgame import Box
    >>> import jax.numpy as jnp
    >>> print(Box(jnp.zeros(2), jnp.ones(2)).project(jnp.array([2.0, 0.5])))
    [1.  0.5]
    """

    lower: Float[Array, " coordinates"]
    upper: Float[Array, " coordinates"]

    def __check_init__(self):
        if self.lower.shape != self.upper.shape:
            raise ValueError(
                f"Box: lower has shape {self.lower.shape}, upper {self.upper.shape}; "
                "give both the same shape."
            )
        if any(isinstance(bound, jax.core.Tracer) for bound in (self.lower, self.upper)):
            return
        fine = jnp.isfinite(self.lower) & jnp.isfinite(self.upper) & (self.lower <= self.upper)
        if not jnp.all(fine):
            where = int(jnp.argmin(fine))
            raise ValueError(
                f"Box: coordinate {where} goes from {self.lower[where]} to {self.upper[where]}; "
                "give finite bounds, the lower one first."
            )

    def centre(self) -> Float[Array, " coordinates"]:
        return (self.lower + self.upper) / 2

    def project(self, choice: Float[Array, " coordinates"]) -> Float[Array, " coordinates"]:
        return jnp.clip(choice, self.lower, self.upper)

    def support(self, gradient: Float[Array, " coordinates"]) -> Float[Array, ""]:
        return jnp.sum(jnp.maximum(gradient * self.lower, gradient * self.upper))


def _check_rows(name: str, matrix: Array, side_name: str, side: Array, coordinates: int) -> None:
    if matrix.ndim != 2 or matrix.shape[1] != coordinates or side.shape != matrix.shape[:1]:
        raise ValueError(
            f"Polytope: {name} has shape {matrix.shape}, {side_name} {side.shape}; give "
            f"{name} [rows, {coordinates}] and {side_name} [rows]."
        )
    for field, array in ((name, matrix), (side_name, side)):
        if isinstance(array, jax.core.Tracer):
            continue
        fine = jnp.isfinite(array)
        if not jnp.all(fine):
            at = tuple(int(i) for i in jnp.argwhere(~fine)[0])
            raise ValueError(
                f"Polytope: {field}{list(at)} is {array[at]}; give finite numbers (a row of zeros "
                f"in {name}{' with b = 1' if name == 'A' else ' with e = 0'} is no constraint)."
            )


class Polytope(AbstractConstrainedSet):
    """The vectors y with A y <= b and E y = e, coordinate by coordinate; all numbers finite.

    A row of zeros with b = 1 is no constraint, so that polytopes with different numbers of rows
    can be stacked. The polytope may be empty or unbounded: `solve_user_problem` says so.

    - `A` [inequalities, coordinates], `b` [inequalities].
    - `E` [equalities, coordinates], `e` [equalities]. Default: no equalities.

    >>> from diffgame import Polytope
    >>> import jax.numpy as jnp
    >>> budget = Polytope(A=jnp.array([[2.0, 1.0]]), b=jnp.array([4.0]))
    >>> print(budget.constraints(jnp.ones(2)).inequalities)
    [-1.]
    """

    A: Float[Array, "inequalities coordinates"]
    b: Float[Array, " inequalities"]
    E: Float[Array, "equalities coordinates"]
    e: Float[Array, " equalities"]

    def __init__(
        self,
        A: Float[Array, "inequalities coordinates"],
        b: Float[Array, " inequalities"],
        E: Float[Array, "equalities coordinates"] | None = None,
        e: Float[Array, " equalities"] | None = None,
    ):
        if (E is None) != (e is None):
            raise ValueError("Polytope: only one of E and e is given; give both or neither.")
        self.A = A
        self.b = b
        self.E = jnp.zeros((0, A.shape[-1]), A.dtype) if E is None else E
        self.e = jnp.zeros(0, A.dtype) if e is None else e

    def __check_init__(self):
        _check_rows("A", self.A, "b", self.b, self.A.shape[-1])
        _check_rows("E", self.E, "e", self.e, self.A.shape[-1])

    def centre(self) -> Float[Array, " coordinates"]:
        return jnp.zeros(self.A.shape[-1], self.A.dtype)

    def constraints(self, choice: Float[Array, " coordinates"]) -> Constraints:
        return Constraints(self.A @ choice - self.b, self.E @ choice - self.e)


class Constrained(AbstractConstrainedSet):
    """Vectors of `size` numbers that the game itself constrains, by its `user_constraints`.

    `start` is where the search begins, zeros by default: give a point inside where utility or
    constraints are not defined everywhere (logarithms, roots).

    >>> from diffgame import Constrained
    >>> print(Constrained(2).centre())
    [0. 0.]
    """

    size: int = eqx.field(static=True)
    start: Float[Array, " size"] | None = None

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"Constrained: size is {self.size}; it must be at least 1.")
        if self.start is not None and self.start.shape != (self.size,):
            raise ValueError(
                f"Constrained: start has shape {self.start.shape}; give shape ({self.size},)."
            )

    def centre(self) -> Float[Array, " size"]:
        return jnp.zeros(self.size) if self.start is None else self.start

    def constraints(self, choice: Float[Array, " size"]) -> Constraints:
        del choice
        return Constraints()


class DecisionTree(AbstractFiniteSet):
    """A tree of uniform depth: at each level either the user or nature moves.

    `moves` holds one pair `("user" | "nature", number of moves)` per level. The game's `chance`
    says how likely nature is to lead to each leaf.

    >>> from diffgame import DecisionTree
    >>> # choose one of 2 providers, see one of 3 messages, take one of 4 actions
    >>> DecisionTree((("user", 2), ("nature", 3), ("user", 4))).shape
    (2, 3, 4)
    """

    moves: tuple[tuple[str, int], ...] = eqx.field(static=True)

    def __check_init__(self):
        for level, (who, size) in enumerate(self.moves):
            if who not in ("user", "nature") or size < 1:
                raise ValueError(
                    f"DecisionTree: moves[{level}] is {(who, size)!r}; give ('user' or 'nature', "
                    "a number of moves of at least 1)."
                )
        if not any(self.decides):
            raise ValueError("DecisionTree: the user never moves; give her at least one level.")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(size for _, size in self.moves)

    @property
    def decides(self) -> tuple[bool, ...]:
        return tuple(who == "user" for who, _ in self.moves)

    def centre(self) -> Float[Array, "..."]:
        own = math.prod(size for who, size in self.moves if who == "user")
        return jnp.full(self.shape, 1 / own)
