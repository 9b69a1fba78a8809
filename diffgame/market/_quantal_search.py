"""Equilibria against quantal users, searched and certified, over a range of temperatures."""

import dataclasses
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Scalar

from .._policy import ProbabilityTable
from .._response import Logit
from .._solve import solve
from .._solver import GradientPlay
from ._anneal import along_rows, unit_market
from ._market import Market, babbling, full_revelation, random_profile
from ._quantal import QuantalEquilibrium, certify_quantal, has_brackets
from ._quantal_bound import market_regret_bound
from ._quantal_replies import reply_in_turn
from ._search import MarketStatus

_STEPS = 1000
# Steps shrink so that the end is a point and not a neighbourhood. Made once: see _anneal.py.
_SOLVER = GradientPlay(
    optax.chain(along_rows(), optax.adam(optax.cosine_decay_schedule(0.05, _STEPS, 1e-4)))
)


@eqx.filter_jit
def _settle(
    market: Market, starts: Float[Array, "starts p o s m"], temperature: Scalar
) -> Float[Array, "starts p o s m"]:
    # Payoffs in units of the market's, so that steps have a length; utility as it is, so that the
    # temperature keeps its meaning.
    unit = eqx.tree_at(lambda m: m.objective, market, unit_market(market).objective)

    def one(table):
        found = solve(
            unit,
            Logit(temperature),
            ProbabilityTable(table),
            _SOLVER,
            tolerance=1e-9,
            max_steps=_STEPS,
            throw=False,
        )
        (end,) = jax.tree.leaves(found.profile)
        return end

    return jax.vmap(one)(starts)


def _improve(market: Market, end: QuantalEquilibrium, tolerance: float) -> QuantalEquilibrium:
    """What best replies in turn lead to from an exploitable end point, where that is better."""
    if end.status is not MarketStatus.exploitable:
        return end
    start = ProbabilityTable(jnp.asarray(end.table))
    profile, rounds = reply_in_turn(market, start, end.temperature, tolerance=tolerance)
    found = certify_quantal(market, profile, end.temperature, tolerance=tolerance)
    order = list(MarketStatus)
    return min(
        end,
        dataclasses.replace(found, replies=rounds),
        key=lambda found: (order.index(found.status), np.max(found.lower)),
    )


def find_quantal_equilibria(
    market: Market,
    temperature: float,
    *,
    starts: int = 4,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> list[QuantalEquilibrium]:
    """Gradient play from babbling, full revelation and `starts` random profiles, each certified.

    Gradients stop at local optima. Where best deviations are bracketed (personalized, two or three
    states of positive probability), exploitable end points are improved by best replies in turn,
    and `replies` counts the rounds; the best certified profile is kept.

    **Arguments:** as `certify_quantal`; signals get a message per action, or one more than there
    are states. Exploitable end points are returned too: their status says so. Needs float64.
    """
    if starts < 0:
        raise ValueError(f"find_quantal_equilibria: starts is {starts}; give at least 0.")
    states, actions = len(market.prior), market.utility.shape[1]
    # A best reply is a point of the boundary of what signals are worth to her and to the provider,
    # so that one posterior more than there are states is enough.
    market = market.with_messages(max(states + 1, actions, market.messages))
    keys = jax.random.split(jax.random.key(seed), max(starts, 1))[:starts]
    profiles = [babbling(market), full_revelation(market)]
    profiles += [random_profile(market, key) for key in keys]
    tables = jnp.stack([profile.probability for profile in profiles])
    ends = _settle(market, tables, jnp.asarray(temperature, market.prior.dtype))
    found = [
        certify_quantal(market, ProbabilityTable(end), temperature, tolerance=tolerance, seed=seed)
        for end in ends
    ]
    if not has_brackets(market):
        return found
    return [_improve(market, end, tolerance) for end in found]


def temperature_table(
    market: Market,
    temperatures: Sequence[float],
    *,
    starts: int = 4,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> list[dict[str, float | int | str]]:
    """Users' welfare at equilibrium against their temperature: one row per temperature.

    **Returns:** rows with keys

    - `temperature`; `full_information`: users' total utility if exact users knew the state;
    - `found`, `certified`, `local`, `exploitable`: end points of the search, by status, and
        `certified_by_gradient`: those certified before any best reply;
    - `status`: the best status among them, and `worst`, `best`: users' least and greatest total
        utility among the end points of that status; `loss`: full information less `worst`;
    - `worst_gain`: the largest proved bound on a deviation's gain among these;
    - `noise_bound`: what her own noise can cost users in total, whatever is posted.

    So `loss - noise_bound`, where positive, is due to what providers post. Needs float64.

    **Source:** the claim of Collina, Goel, Roth, Ryu, Shi, Emergent Alignment via Competition
    (arXiv 2509.15090), that quantal users fare nearly as well as exact ones, as a table.
    """
    mass = np.asarray(market.mass)
    known = np.max(np.asarray(market.utility), axis=1) @ np.asarray(market.prior)
    providers, _, actions, _ = market.objective.shape
    rows: list[dict[str, float | int | str]] = []
    for temperature in temperatures:
        found = find_quantal_equilibria(
            market, temperature, starts=starts, seed=seed, tolerance=tolerance
        )
        counts = {status: sum(end.status is status for end in found) for status in MarketStatus}
        # Declared from certified to exploitable.
        status = next(status for status in MarketStatus if counts[status])
        among = [end for end in found if end.status is status]
        totals = [float(mass @ end.user_values) for end in among]
        noise = float(market_regret_bound(providers, actions, temperature))
        rows.append(
            {
                "temperature": float(temperature),
                "full_information": float(mass @ known),
                "found": len(found),
                **{str(name): count for name, count in counts.items()},
                "certified_by_gradient": sum(
                    end.status is MarketStatus.certified and end.replies == 0 for end in found
                ),
                "status": str(status),
                "worst": min(totals),
                "best": max(totals),
                "loss": float(mass @ known) - min(totals),
                "worst_gain": max(float(np.max(end.upper)) for end in among),
                "noise_bound": noise * float(mass.sum()),
            }
        )
    return rows
