"""pyblp's car and cereal data as games of price competition: demand fixed, costs implied."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from diffgame import Logit
from diffgame.games import MultiProductBertrand

from ._harness import require

LOGIT = Logit(1.0)


class Demand(NamedTuple):
    """A data set with fixed demand parameters.

    - `tastes`: product characteristics, "1" for the constant. `sigma`, `pi`: standard deviations
        and effects of demographics by taste, as in pyblp; prices are among the tastes.
    - `demographics`: pyblp's formula. `price`: mean coefficient of price.
    - `merger`: the firms that merge. `buyers`: market size; payoffs are theirs.
    """

    name: str
    data: str
    price: float
    tastes: tuple[str, ...]
    sigma: tuple[float, ...]
    demographics: tuple[str, ...]
    pi: tuple[tuple[float, ...], ...]
    merger: tuple[int, int]
    buyers: float
    tolerance: float


# Berry, Levinsohn, Pakes (1995): table III, IV logit; table IV. Prices in 1983 $1,000; price
# sensitivity is 43.501 / income. Firms 19 and 16: General Motors and Chrysler.
CARS = ("1", "prices", "hpwt", "air", "mpd", "space")
# Nevo (2000), A practitioner's guide, with the estimates of pyblp's tutorial, rounded to 4 digits.
CEREAL = ("1", "prices", "sugar", "mushy")
PEOPLE = ("income", "income_squared", "age", "child")
NEVO_PI = (
    (2.292, 0.0, 1.284, 0.0),
    (588.3, -30.19, 0.0, 11.05),
    (-0.3849, 0.0, 0.05223, 0.0),
    (0.7484, 0.0, -1.353, 0.0),
)
DEMANDS = (
    Demand("cars, plain logit", "BLP", -0.216, (), (), (), (), (19, 16), 1e6, 1e-10),
    Demand("cereal, plain logit", "NEVO", -30.0, (), (), (), (), (1, 2), 1e3, 1e-10),
    Demand(
        "cars, random coefficients",
        "BLP",
        0.0,
        CARS,
        (3.612, 0.0, 4.628, 1.818, 1.050, 2.056),
        ("1 / income",),
        ((0.0,), (-43.501,), (0.0,), (0.0,), (0.0,), (0.0,)),
        (19, 16),
        1e6,
        1e-8,
    ),
    Demand(
        "cereal, random coefficients",
        "NEVO",
        -62.73,
        CEREAL,
        (0.5581, 3.312, 0.005780, 0.09341),
        PEOPLE,
        NEVO_PI,
        (1, 2),
        1e3,
        1e-8,
    ),
)


class Markets(eqx.Module):
    """All markets of a data set, padded to one shape; `sold`: how many buyers take a product."""

    owner: Int[Array, "*markets products"]
    prices: Float[Array, "*markets products"]
    sold: Float[Array, "*markets products"]
    taste: Float[Array, "*markets users products"]
    sensitivity: Float[Array, "*markets users"]
    mass: Float[Array, "*markets users"]
    providers: int = eqx.field(static=True)
    slots: int = eqx.field(static=True)


def _columns(table: Any, names: Sequence[str]) -> np.ndarray:
    return np.stack([table.eval(name) + np.zeros(len(table)) for name in names], axis=-1)


def _pad(array: np.ndarray, size: int, value: float) -> np.ndarray:
    widths = [(0, 0)] * (array.ndim - 1) + [(0, size - array.shape[-1])]
    return np.pad(array, widths, constant_values=value)


def load(demand: Demand, count: int | None = None) -> tuple[Any, Any, Markets]:
    """The products and buyers of pyblp's data, and both as markets; only `count` if given."""
    pyblp, pandas = require("pyblp"), require("pandas")
    products = pandas.read_csv(getattr(pyblp.data, f"{demand.data}_PRODUCTS_LOCATION"))
    agents = pandas.read_csv(getattr(pyblp.data, f"{demand.data}_AGENTS_LOCATION"))
    names = np.unique(products["market_ids"])[:count]
    products = products[products["market_ids"].isin(names)]
    products = products.sort_values("market_ids", kind="stable", ignore_index=True)
    agents = agents[agents["market_ids"].isin(names)].reset_index(drop=True)
    firms = np.unique(products["firm_ids"])
    parts = []
    for name in names:
        own = products[products["market_ids"] == name]
        prices, shares = own["prices"].to_numpy(), own["shares"].to_numpy()
        sensitivity, weights = np.array([-demand.price]), np.ones(1)
        taste = np.zeros((1, len(own)))
        if demand.tastes:
            people = agents[agents["market_ids"] == name]
            # pyblp gives its nodes to the tastes with a positive deviation, in their order.
            random = np.array(demand.sigma) > 0
            coefficients = _columns(people, demand.demographics) @ np.array(demand.pi).T
            nodes = people[[f"nodes{k}" for k in range(random.sum())]].to_numpy()
            coefficients[:, random] += nodes * np.array(demand.sigma)[random]
            price = demand.tastes.index("prices")
            sensitivity = -demand.price - coefficients[:, price]
            coefficients[:, price] = 0
            taste = coefficients @ _columns(own, demand.tastes).T
            weights = people["weights"].to_numpy()
        owner = np.searchsorted(firms, own["firm_ids"])
        parts.append((owner, prices, shares, taste, sensitivity, demand.buyers * weights))
    most = max(len(part[0]) for part in parts)
    padded = [
        [_pad(array, most, value) for array, value in zip(part, (-1, 0, 0, 0), strict=False)]
        + list(part[4:])
        for part in parts
    ]
    owner, prices, share, taste, sensitivity, mass = (
        jnp.asarray(np.stack(column)) for column in zip(*padded, strict=True)
    )
    absorbed = products["firm_ids"].replace(demand.merger[1], demand.merger[0])
    slots = int(products.groupby([products["market_ids"], absorbed]).size().max())
    sold = demand.buyers * share
    markets = Markets(owner, prices, sold, taste, sensitivity, mass, firms.size, slots)
    return products, agents, markets


def quality(market: Markets) -> Float[Array, "users products"]:
    """Each buyer's utilities without price at which sales at observed prices are the observed ones.

    **Source:** Berry, Levinsohn, Pakes (1995), section 6.1 (the contraction).
    """
    here = market.owner >= 0
    sold = jnp.where(here, market.sold, 1)
    known = market.taste - market.sensitivity[:, None] * market.prices[None]

    def improve(carry):
        mean, _, step = carry
        value = jnp.where(here[None], known + mean[None], -jnp.inf)
        probability = jax.nn.softmax(jnp.pad(value, ((0, 0), (0, 1))), axis=1)[:, :-1]
        predicted = market.mass @ probability
        change = jnp.where(here, jnp.log(sold / jnp.where(here, predicted, 1)), 0)
        return mean + change, jnp.max(jnp.abs(change)), step + 1

    def goes_on(carry):
        return (carry[1] > 1e-13) & (carry[2] < 5_000)

    start = jnp.zeros_like(market.prices), jnp.array(jnp.inf), jnp.array(0)
    return market.taste + jax.lax.while_loop(goes_on, improve, start)[0][None]


@eqx.filter_jit
def make_games(markets: Markets) -> MultiProductBertrand:
    """The games in which observed prices satisfy every firm's first-order conditions."""

    def make(market):
        def game(cost):
            return MultiProductBertrand(
                cost,
                market.owner,
                quality(market),
                market.sensitivity,
                market.mass,
                providers=market.providers,
                slots=market.slots,
            )

        free = game(jnp.zeros_like(market.prices))
        return game(free.implied_cost(LOGIT, free.arrange(market.prices)))

    return jax.lax.map(make, markets)
