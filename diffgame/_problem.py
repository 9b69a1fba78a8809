"""What a solver may ask: the field whose zeros are stationary, and where it lives."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ._constraints import Constraints
from ._game import AbstractGame
from ._play import project, provider_payoffs, provider_totals, pseudogradient, split
from ._policy import AbstractPolicy
from ._response import AbstractResponse


def move(parameters: PyTree, length: Any, direction: PyTree) -> PyTree:
    """`parameters + length * direction`, leaf by leaf."""
    return jax.tree.map(lambda leaf, change: leaf + length * change, parameters, direction)


class AbstractProblem(eqx.Module):
    """A game seen as a variational inequality: a field over a set with a cheap projection.

    `parameters` is any pytree of arrays; a point is stationary where its natural residual is 0.
    """

    @abc.abstractmethod
    def field(self, parameters: PyTree) -> PyTree:
        """The direction in which every part of the parameters wants to go."""

    @abc.abstractmethod
    def project(self, parameters: PyTree) -> PyTree:
        """The nearest feasible parameters."""

    @abc.abstractmethod
    def profile(self, parameters: PyTree) -> AbstractPolicy:
        """The whole profile."""

    def ahead(self, parameters: PyTree, field: PyTree, length: Any) -> PyTree:
        """`length` along the field, before projection; a problem may move some parts by 1."""
        return move(parameters, length, field)

    def residual(self, parameters: PyTree, field: PyTree) -> PyTree:
        """The natural residual `x - P(x + F(x))`: zero exactly at stationary parameters.

        **Source:** Facchinei, Pang (2003), Finite-Dimensional Variational Inequalities, 1.5.
        """
        there = self.project(self.ahead(parameters, field, 1.0))
        return jax.tree.map(jnp.subtract, parameters, there)


class Problem(AbstractProblem):
    """A game whose policies know their feasible sets. Parameters: a profile, None if fixed.

    - `rest`: the other half of the profile, as `split` gives it.
    - `anticipate`: whether providers see how users react. `chunk`: users streamed at a time.
    """

    game: AbstractGame
    response: AbstractResponse
    rest: AbstractPolicy
    anticipate: bool = eqx.field(static=True)
    chunk: int | None = eqx.field(static=True)

    def profile(self, parameters: AbstractPolicy) -> AbstractPolicy:
        return eqx.combine(parameters, self.rest)

    def payoffs(
        self, parameters: AbstractPolicy, expected: AbstractPolicy | None = None
    ) -> Float[Array, " providers"]:
        """Every provider's payoff; naive providers think that users respond to `expected`."""
        held = None if self.anticipate or expected is None else self.profile(expected)
        profile = self.profile(parameters)
        return provider_payoffs(self.game, self.response, profile, expected=held, chunk=self.chunk)

    def field(self, parameters: AbstractPolicy) -> AbstractPolicy:
        profile = self.profile(parameters)
        return pseudogradient(
            self.game, self.response, profile, anticipate=self.anticipate, chunk=self.chunk
        )

    def project(self, parameters: AbstractPolicy) -> AbstractPolicy:
        return split(project(self.profile(parameters)))[0]


class Multipliers(eqx.Module):
    """Prices of the providers' constraints, in units of payoff per unit of constraint.

    - `own`: of `provider_constraints`, leaves [providers, constraints].
    - `shared`: of `shared_constraints`, leaves [providers, constraints]; equal up to the weights
        at a normalized equilibrium.

    Those of inequalities are at least 0; those of equalities have any sign.
    """

    own: Constraints
    shared: Constraints


class Joint(eqx.Module):
    """The parameters of a constrained problem: policies and prices."""

    policies: AbstractPolicy
    multipliers: Multipliers


def evaluate_constraints(
    game: AbstractGame, profile: AbstractPolicy, totals: PyTree
) -> tuple[Constraints, Constraints]:
    """Every provider's own constraints, leaves [providers, constraints], and the shared ones."""
    count = jax.tree.leaves(split(profile)[0])[0].shape[0]
    own = jax.vmap(lambda provider: game.provider_constraints(profile, totals, provider))(
        jnp.arange(count)
    )
    return own, game.shared_constraints(profile, totals)


class ConstrainedProblem(AbstractProblem):
    """A game with constraints on providers, as the joint system of everybody's KKT conditions.

    Parameters: a `Joint`. Providers climb their Lagrangians, prices climb the constraints'
    violation: the natural residual holds stationarity, feasibility and complementarity,
    `min(price, -constraint)`, in one.

    - `weights` [providers]: positive; at a normalized equilibrium provider i pays the common
        price divided by `weights[i]`.
    - `normalized`: whether the prices of shared constraints are common. If not, every provider
        has its own, and there are usually many equilibria.

    **Source:** Rosen (1965), section 2 (normalized equilibria); Facchinei, Kanzow (2010),
    Generalized Nash equilibrium problems, section 4.
    """

    plain: Problem
    weights: Float[Array, " providers"]
    normalized: bool = eqx.field(static=True)

    def profile(self, parameters: Joint) -> AbstractPolicy:
        return self.plain.profile(parameters.policies)

    def _everything(self, policies: AbstractPolicy, expected: AbstractPolicy | None):
        game, profile = self.plain.game, self.plain.profile(policies)
        totals = provider_totals(
            game, self.plain.response, profile, expected=expected, chunk=self.plain.chunk
        )
        return game.settle(totals), *evaluate_constraints(game, profile, totals)

    def prices(self, multipliers: Multipliers) -> Multipliers:
        """What every provider pays: shared prices per provider, leaves [providers, constraints]."""
        shared = jax.tree.map(lambda leaf: leaf / self.weights[:, None], multipliers.shared)
        return Multipliers(multipliers.own, shared)

    def start(self, policies: AbstractPolicy) -> Joint:
        """Feasible parameters without prices."""
        shapes = jax.eval_shape(self._everything, policies, None)
        _, own, shared = shapes
        rows = 1 if self.normalized else self.weights.shape[0]
        own = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), own)
        shared = jax.tree.map(lambda leaf: jnp.zeros((rows, *leaf.shape), leaf.dtype), shared)
        return Joint(self.plain.project(policies), Multipliers(own, shared))

    def field(self, parameters: Joint) -> Joint:
        expected = None if self.plain.anticipate else self.profile(parameters)
        values, pull = jax.vjp(
            lambda policies: self._everything(policies, expected), parameters.policies
        )
        payoffs, own, shared = values
        prices = self.prices(parameters.multipliers)
        providers = jnp.arange(payoffs.shape[0])

        def lagrangian_gradient(provider):
            mine = (providers == provider).astype(payoffs.dtype)
            own_prices = jax.tree.map(lambda leaf: -leaf * mine[:, None], prices.own)
            shared_prices = jax.tree.map(lambda leaf: -leaf[provider], prices.shared)
            (gradient,) = pull((mine, own_prices, shared_prices))
            return jax.tree.map(lambda leaf: leaf[provider], gradient)

        rows = jax.tree.leaves(parameters.multipliers.shared)[0].shape[0]
        violation = jax.tree.map(lambda leaf: jnp.tile(leaf[None], (rows, 1)), shared)
        return Joint(jax.vmap(lagrangian_gradient)(providers), Multipliers(own, violation))

    def ahead(self, parameters: Joint, field: Joint, length: Any) -> Joint:
        # Prices count in other units than policies: only these are moved by the length.
        policies = move(parameters.policies, length, field.policies)
        return Joint(policies, move(parameters.multipliers, 1.0, field.multipliers))

    def project(self, parameters: Joint) -> Joint:
        def clip(prices: Constraints) -> Constraints:
            return Constraints(jnp.maximum(prices.inequalities, 0), prices.equalities)

        prices = parameters.multipliers
        return Joint(
            self.plain.project(parameters.policies),
            Multipliers(clip(prices.own), clip(prices.shared)),
        )


def has_constraints(game: AbstractGame) -> bool:
    """Whether the game says anything about constraints on providers."""
    kind = type(game)
    return (
        kind.provider_constraints is not AbstractGame.provider_constraints
        or kind.shared_constraints is not AbstractGame.shared_constraints
    )
