"""What a solve returns, and what is known about it."""

import equinox as eqx
from jaxtyping import Array, Float, Int, Scalar

from ._play import Outcome
from ._policy import AbstractPolicy
from ._problem import Multipliers


class Status(eqx.Enumeration):
    """What is known about a point; the text of each member says what to do next."""

    certified = (
        "Certified to the tolerance and within the scope that the certificate states: nothing is "
        "left to do."
    )
    stationary_only = (
        "Stationary: no provider gains by a small move, to first order. That is no equilibrium "
        "yet; call `diffgame.certify` to search for larger gains."
    )
    not_stationary = (
        "The natural residual of anticipating providers, computed anew, exceeds the tolerance of "
        "the certificate: solve on from this profile with anticipate=True and a smaller tolerance, "
        "or certify at a larger one."
    )
    improvable = (
        "Stationary, but a provider gains by deviating, or its payoff is convex in a free "
        "direction: solve again from `certificate.deviations` or from other starts."
    )
    response_inexact = (
        "The users' response leaves more utility on the table than the tolerance allows, so "
        "payoffs and gradients are not those of the game: raise `max_steps` of `Concave`, or "
        "rescale the users' utility."
    )
    crowd_not_settled = (
        "Users affect each other, and their crowd is not isolated and stable, so the profile may "
        "lead elsewhere after any small change: see `outcome.interaction.status`, and list the "
        "crowds with `crowd_equilibria`."
    )
    not_concave = (
        "A user's utility is convex in some direction where `Concave` ended, so her choice may be "
        "her worst: use `Argmax` or `Logit` on a finite choice set, or a concave utility."
    )
    max_steps = (
        "The maximum number of steps was reached before the natural residual fell to the "
        "tolerance: raise `max_steps`, try another solver (`Extragradient` where play rotates, "
        "`Newton` near a solution), or start elsewhere."
    )
    diverged = (
        "The parameters grew without bound: lower the learning rate, bound the policies, or use "
        "`Extragradient` or `Newton`."
    )
    nonfinite = (
        "A parameter, payoff or gradient is not finite: check the game's numbers at the starting "
        "profile, lower the learning rate, or bound the policies."
    )


class Certificate(eqx.Module):
    """What `certify` found at a profile, recomputed without the solver.

    - `residual`: sup norm of the natural residual, in units of the parameters.
    - `deviation_gains` [providers]: the most that each provider was found to gain alone, in units
        of payoff; `deviations`: a profile whose i-th policy attains the i-th gain.
    - `second_order` [providers]: largest eigenvalue of each provider's own Hessian on its free
        directions; -inf where none is free.
    - `user_gap` [users]: utility that the response leaves on the table, or a bound on it.
    - `tolerance`: what all of these were compared with. `scope`: what was searched, in words.
    """

    residual: Scalar
    deviation_gains: Float[Array, " providers"]
    deviations: AbstractPolicy
    second_order: Float[Array, " providers"]
    user_gap: Float[Array, " users"]
    tolerance: float = eqx.field(static=True)
    scope: str = eqx.field(static=True)


class Equilibrium(eqx.Module):
    """A profile, what happens there, and what is known about it.

    - `profile`: one policy, leaves with a leading "providers" axis. `outcome`: the play of it.
    - `residual`: sup norm of the natural residual, in units of the parameters; NaN if not finite.
    - `status`: a `Status`; print `Status[status]` for the text. `steps`: steps of the solver.
    - `solver`: how it was made, in words. `certificate`: None until `certify`.
    - `multipliers`: what the constraints on providers cost them; None without constraints.
    """

    profile: AbstractPolicy
    outcome: Outcome
    residual: Scalar
    status: Status
    steps: Int[Array, ""]
    solver: str = eqx.field(static=True)
    certificate: Certificate | None = None
    multipliers: Multipliers | None = None
