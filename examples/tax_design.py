"""Design taxes on three drinks through the price competition that they set off.

    python examples/tax_design.py

Three producers set prices; two groups of buyers, one of them twice as sensitive to prices, choose a
drink or none (multinomial logit). Sugar harms by an amount per drink that no buyer counts. The
planner sets a tax per drink and maximises the buyers' surplus plus profits plus tax revenue minus
harm, and the taxes must raise REVENUE per buyer. Producers answer each tax by new prices: the
search differentiates through their equilibrium, and certifies it at every step. All numbers are
made up.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffgame import (
    Constant,
    Constraints,
    Design,
    DesignStatus,
    Equilibrium,
    Logit,
    Status,
    design,
    solve,
)
from diffgame.games import LogitBertrand

DRINKS = ("cola", "juice", "water")
GROUPS = ("sensitive", "other")
COST = (0.5, 0.7, 0.3)  # money per drink
QUALITY = (2.0, 1.8, 1.0)  # utility
HARM = (0.6, 0.3, 0.0)  # money per drink
SENSITIVITY = (2.0, 1.0)  # utility per money
MASS = (0.5, 0.5)
REVENUE = 0.1  # money per buyer


def game(tax: Float[Array, " drinks"]) -> LogitBertrand:
    """Producers pay the tax like a cost."""
    cost = jnp.array(COST) + tax
    return LogitBertrand(cost, jnp.array(QUALITY), jnp.array(SENSITIVITY), jnp.array(MASS))


def start() -> Constant:
    """Prices to start from, and the range of prices."""
    return Constant(jnp.ones(3), 0.0, 10.0)


def surplus(found: Equilibrium) -> Float[Array, " groups"]:
    """Expected surplus of one buyer of each group, in money."""
    sensitivity = jnp.array(SENSITIVITY)[:, None]
    value = jnp.array(QUALITY)[None] - sensitivity * found.outcome.offers
    return jnp.log1p(jnp.sum(jnp.exp(value), axis=1)) / jnp.array(SENSITIVITY)


def sales(found: Equilibrium) -> Float[Array, " drinks"]:
    """Drinks sold to both groups."""
    return jnp.array(MASS) @ found.outcome.choices[:, :-1]


def total(found: Equilibrium, tax: Float[Array, " drinks"]) -> Float[Array, ""]:
    """Everybody's surplus: buyers, producers, the treasury, minus harm."""
    private = jnp.sum(jnp.array(MASS) * surplus(found)) + jnp.sum(found.outcome.payoffs)
    return private + jnp.sum((tax - jnp.array(HARM)) * sales(found))


@eqx.filter_jit
def compete(tax: Float[Array, " drinks"]) -> Equilibrium:
    """The producers' equilibrium under given taxes."""
    return solve(game(tax), Logit(1.0), start(), tolerance=1e-10)


def missing(found: Equilibrium, tax: Float[Array, " drinks"]) -> Constraints:
    """How much revenue is missing: at most nothing."""
    return Constraints(inequalities=(REVENUE - jnp.sum(tax * sales(found)))[None])


def find_taxes(key: jax.Array, starts: int = 4) -> Design:
    """The design, from random taxes between -1 and 2."""
    return design(
        total,
        jnp.zeros(3),
        game,
        Logit(1.0),
        start(),
        key=key,
        constraints=missing,
        lower=-1.0,
        upper=2.0,
        starts=starts,
    )


def report(before: Equilibrium, found: Design) -> None:
    """Print both equilibria, the design and what certifies it."""
    answer, after = found.answer, found.equilibrium
    print(f"{'':<10}{'tax':>8}{'harm':>8}{'price before, after':>22}{'sales before, after':>22}")
    for i, drink in enumerate(DRINKS):
        prices = f"{before.outcome.offers[0, i]:.3f}, {after.outcome.offers[0, i]:.3f}"
        sold = f"{sales(before)[i]:.3f}, {sales(after)[i]:.3f}"
        print(f"{drink:<10}{found.parameters[i]:>8.3f}{HARM[i]:>8.2f}{prices:>22}{sold:>22}")
    for i, group in enumerate(GROUPS):
        print(f"surplus of a buyer, {group}: {surplus(before)[i]:.4f}, {surplus(after)[i]:.4f}")
    print(f"total: {total(before, jnp.zeros(3)):.6f}, {found.objective:.6f}")
    print(f"price of one more unit of revenue: {answer.multipliers.inequalities[0]:.4f}\n")
    print(f"design: {DesignStatus[found.status]}")
    print(f"residual {answer.residual:.1e}, violation {answer.violation:.1e}; {found.scope}")
    certificate = after.certificate
    print(f"equilibrium: {Status[after.status]}")
    assert certificate is not None
    print(
        f"residual {certificate.residual:.1e}, largest gain found "
        f"{jnp.max(certificate.deviation_gains):.1e}, largest curvature "
        f"{jnp.max(certificate.second_order):.3f}; {certificate.scope}"
    )


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    report(compete(jnp.zeros(3)), find_taxes(jax.random.key(0)))
