"""Logit equilibria on the principal branch, batched by `jax.vmap` and differentiable."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from .._implicit import implicit_root
from .._lanes import advance_lanes, lanes_first, lanes_last, over_lanes
from ._check import LogitCheck, centred, check_logit
from ._logit_path import advance, begin, probabilities
from ._normal_form import NormalForm, Profile, action_payoffs


class LogitStatus(eqx.Enumeration):
    """What is known about a logit equilibrium; the text of each member says what to do next."""

    certified = "A logit equilibrium to the tolerance of its check: nothing is left to do."
    max_steps = (
        "The branch did not reach the rationality within `max_steps`: raise it, or lower the "
        "rationality."
    )
    lost = (
        "The branch could not be followed on, as at a degenerate point: change the payoffs "
        "slightly, or lower the rationality."
    )
    inexact = (
        "The branch reached the rationality, but the check found a residual above the tolerance: "
        "raise `tolerance`; rationality times payoffs may exceed what float64 resolves."
    )
    nonfinite = "A payoff or the rationality is not finite, or the latter negative: correct it."


class LogitEquilibrium(eqx.Module):
    """A logit equilibrium and what is known about it.

    - `profile`: one vector of probabilities per player. `rationality`: lambda, per unit of payoff.
    - `check`: its certificate. `status`: a `LogitStatus`; only `certified` is an equilibrium.
    - `steps`: along the branch. `bifurcations`: how many points were passed where branches cross;
        beyond one, which branch is the principal one is a convention: here the straight one.
    """

    profile: Profile
    rationality: Scalar
    check: LogitCheck
    status: LogitStatus
    steps: Int[Array, ""]
    bifurcations: Int[Array, ""]


def scaled(payoffs: Array) -> tuple[Array, Array]:
    """Centred payoffs of largest size 1, and that size (1 where all are 0)."""
    payoffs = centred(payoffs)
    size = jnp.max(jnp.abs(payoffs))
    size = jnp.where(size > 0, size, 1)
    return payoffs / size, size


def _follow(max_steps: int):
    def goes_on(walk):
        return ~walk.arrived & ~walk.lost & (walk.steps < max_steps)

    @functools.partial(over_lanes, axis=0)
    def follow(tables, target):
        start = lanes_first(begin(lanes_last(tables)))
        # What is not finite would only burn steps.
        sound = jnp.isfinite(target) & (target >= 0)
        sound = sound & jnp.all(jnp.isfinite(tables), axis=tuple(range(1, tables.ndim)))
        start = eqx.tree_at(lambda walk: walk.lost, start, ~sound)
        return advance_lanes(
            goes_on,
            lambda shared, walk: advance(shared[0], shared[1], walk, land=True),
            (tables, target),
            start,
        )

    return follow


def _logit_residual(logits, arguments):
    payoffs, rationality = arguments
    profile = probabilities(logits, payoffs.shape[1:])
    values = action_payoffs(NormalForm(centred(payoffs)), profile)
    return logits - rationality * jnp.concatenate(values)


def logit_equilibrium(
    game: NormalForm,
    rationality: Float[Array, ""] | float,
    *,
    tolerance: float = 1e-9,
    max_steps: int = 500,
) -> LogitEquilibrium:
    """The logit (quantal response) equilibrium on the branch that starts at uniform play.

    All players mix with p_i = softmax(rationality u_i(p)). The branch is followed from rationality
    0 through its turning points until it first reaches `rationality`. Batch with `jax.vmap`: games
    that are done leave, and a broken one disturbs no other. Differentiable in payoffs and
    rationality, forward and reverse, by the implicit function theorem.

    **Arguments:**

    - `rationality`: lambda >= 0 per unit of payoff; 0 is uniform play. 1/lambda is a temperature.
    - `tolerance`: of the check, on probabilities. `max_steps`: along the branch.

    **Returns:** a `LogitEquilibrium`; failures are said by its status, never raised.

    **Source:** McKelvey, Palfrey (1995); Turocy (2005).

    >>> import jax.numpy as jnp
    >>> rows = jnp.array([[2.0, 0.0], [0.0, 1.0]])
    >>> found = logit_equilibrium(NormalForm([rows, rows.T]), 1.0)
    >>> print(found.profile[0].round(6), LogitStatus[found.status][:19])
    [0.804154 0.195846] A logit equilibrium
    """
    rationality = jnp.asarray(rationality, game.payoffs.dtype)
    tables, size = jax.lax.stop_gradient(scaled(game.payoffs))
    walk = _follow(max_steps)(tables, jax.lax.stop_gradient(rationality) * size)
    logits = implicit_root(_logit_residual, walk.logits, (game.payoffs, rationality))
    profile = probabilities(logits, game.actions)
    check = check_logit(game, profile, rationality, tolerance)
    status = LogitStatus.where(
        walk.arrived,
        LogitStatus.where(check.certified, LogitStatus.certified, LogitStatus.inexact),
        LogitStatus.where(walk.lost, LogitStatus.lost, LogitStatus.max_steps),
    )
    sound = jnp.all(jnp.isfinite(game.payoffs)) & jnp.isfinite(rationality) & (rationality >= 0)
    status = LogitStatus.where(sound, status, LogitStatus.nonfinite)
    # A point short of its rationality may still pass the check of a coarse tolerance.
    certified = check.certified & walk.arrived & sound
    check = eqx.tree_at(lambda c: c.certified, check, certified)
    return LogitEquilibrium(profile, rationality, check, status, walk.steps, walk.bifurcations)
