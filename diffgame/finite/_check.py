"""Certificates of profiles, computed from the tables alone: they share nothing with any solver."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from ._normal_form import NormalForm, Profile, action_payoffs, regrets


class NashCheck(eqx.Module):
    """What is known about a profile as a Nash equilibrium.

    - `regrets` [players]: what each player gains by its best deviation, in units of its payoff.
    - `relative_regret`: the largest regret over the range of that player's payoffs.
    - `simplex_violation`: how far the profile is from probabilities; inf where not finite.
    - `certified`: all finite, no probability negative, sums 1 and relative regrets 0 to the
        tolerance.
    """

    regrets: Float[Array, " players"]
    relative_regret: Scalar
    simplex_violation: Scalar
    certified: Bool[Array, ""]


class LogitCheck(eqx.Module):
    """What is known about a profile as a logit equilibrium.

    - `residual`: the largest difference of a probability from the logit response to the others.
    - `simplex_violation`: how far the profile is from probabilities; inf where not finite.
    - `certified`: all finite, no probability negative, sums 1 and residual 0 to the tolerance.
    """

    residual: Scalar
    simplex_violation: Scalar
    certified: Bool[Array, ""]


def _simplex_violation(profile: Profile) -> Scalar:
    # Zeros in place of probabilities have no regret: without this they would pass as equilibria.
    errors = [
        jnp.maximum(jnp.abs(jnp.sum(mixed) - 1), jnp.max(-mixed, initial=0.0)) for mixed in profile
    ]
    finite = jnp.stack([jnp.all(jnp.isfinite(mixed)) for mixed in profile])
    return jnp.where(jnp.all(finite), jnp.max(jnp.stack(errors)), jnp.inf)


def _passes(error: Scalar, tolerance: float) -> Bool[Array, ""]:
    return jnp.isfinite(error) & (error >= 0) & (error <= tolerance)


def _proper(profile: Profile, violation: Scalar, tolerance: float) -> Bool[Array, ""]:
    nonnegative = jnp.stack([jnp.all(mixed >= 0) for mixed in profile])
    return jnp.all(nonnegative) & _passes(violation, tolerance)


def check_nash(game: NormalForm, profile: Profile, tolerance: float = 1e-9) -> NashCheck:
    """Check a profile as a Nash equilibrium of the game.

    **Arguments:** `tolerance`: on regrets relative to the range of the player's payoffs, and on
    the sums of probabilities.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> pennies = NormalForm([rows, -rows])
    >>> print(check_nash(pennies, pennies.uniform_profile()).certified)
    True
    >>> print(check_nash(pennies, (jnp.zeros(2), jnp.zeros(2))).certified)
    False
    """
    gains = regrets(game, profile)
    span = jnp.ptp(game.payoffs.reshape(len(game.payoffs), -1), axis=1)
    # Rounding may leave a regret an ulp below 0; the range 0 has regret 0 exactly.
    relative = jnp.maximum(gains, 0) / jnp.where(span > 0, span, 1)
    worst = jnp.max(relative)
    violation = _simplex_violation(profile)
    certified = _proper(profile, violation, tolerance) & _passes(worst, tolerance)
    return NashCheck(gains, worst, violation, certified)


def check_logit(
    game: NormalForm, profile: Profile, rationality: Float[Array, ""] | float, tolerance=1e-9
) -> LogitCheck:
    """Check a profile as a logit equilibrium: p_i = softmax(rationality u_i(p)) for all players.

    **Arguments:** `rationality`: lambda, per unit of payoff. `tolerance`: on probabilities.

    **Source:** McKelvey, Palfrey (1995), Quantal response equilibria for normal form games.

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[1.0, -1.0], [-1.0, 1.0]])
    >>> pennies = NormalForm([rows, -rows])
    >>> print(check_logit(pennies, pennies.uniform_profile(), 3.0).certified)
    True
    """
    values = action_payoffs(NormalForm(centred(game.payoffs)), profile)
    errors = jnp.stack(
        [
            jnp.max(jnp.abs(mixed - jax.nn.softmax(rationality * value)))
            for mixed, value in zip(profile, values, strict=True)
        ]
    )
    residual = jnp.max(errors)
    violation = _simplex_violation(profile)
    certified = _proper(profile, violation, tolerance) & _passes(residual, tolerance)
    return LogitCheck(residual, violation, certified)


def centred(payoffs: Float[Array, "players *actions"]) -> Float[Array, "players *actions"]:
    """Payoffs less their mean over the player's own actions: responses stay the same."""
    return jnp.stack(
        [
            table - jnp.mean(table, axis=player, keepdims=True)
            for player, table in enumerate(payoffs)
        ]
    )
