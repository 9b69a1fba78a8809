"""A provider without competitors: public experiment, menu, and a menu for each user."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..market import monopoly_values
from ._draw import COLOURS, figure, symbols_of
from ._markets import unit
from ._section import Claim, Row, Section, StudySettings, certified, decide

_SLACK = 1e-7
_values = eqx.filter_jit(jax.vmap(monopoly_values))


def _draw(settings: StudySettings, count: int):
    """Users with one type, who differ in their thresholds, and a provider paid by action."""
    rng = np.random.default_rng((settings.seed, 6))
    prior = rng.dirichlet(np.ones(2), size=count)
    utility = unit(rng.uniform(size=(count, 2, 1, 3, 2)))
    objective = unit(rng.uniform(size=(count, 2, 1, 3, 2)))
    # Half of the markets: the provider wants one action, whatever the state.
    objective[::2] = rng.uniform(size=(len(objective[::2]), 2, 1, 3, 1))
    joint = np.broadcast_to(prior[:, None, None], (count, 2, 1, 2))
    return joint, utility, objective, np.ones((count, 2))


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    count = settings.count(200)
    progress(f"{count} monopolists")
    found = _values(*map(jnp.asarray, _draw(settings, count)))
    lower, upper = np.asarray(found.lower), np.asarray(found.upper)
    fine = np.all(np.isfinite(upper) & (upper - lower <= _SLACK), axis=1)
    return [
        {
            "number": n,
            "public": float(lower[n, 0]),
            "menu": float(lower[n, 1]),
            "personalized": float(lower[n, 2]),
            "status": "certified" if fine[n] else "local",
        }
        for n in range(count)
    ]


def _figures(rows: Sequence[Row]):
    from plotly import graph_objects

    ordered = sorted(rows, key=lambda row: row["personalized"] - row["public"])
    traces = [
        graph_objects.Scatter(
            x=list(range(1, len(ordered) + 1)),
            y=[row[name] - row["public"] for row in ordered],
            mode="markers",
            name=f"{name} less public",
            marker={
                "color": COLOURS[colour],
                "size": 5,
                "symbol": symbols_of(ordered),
            },
        )
        for colour, name in enumerate(("personalized", "menu"))
    ]
    return [figure(traces, "markets, by the gain", "gain of the provider")]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    sure = certified(rows)
    menus = sum(row["menu"] > row["public"] + _SLACK for row in sure)
    personal = sum(row["personalized"] > row["menu"] + _SLACK for row in sure)
    return [
        Claim(
            "M: a monopolist gets no more from a public experiment than from a menu, and from that "
            "no more than from personalized menus",
            f"{len(sure)} certified random markets of two users",
            f"menu strictly better in {menus}, personalized strictly better in {personal}",
            decide(
                rows,
                lambda row: (
                    row["public"] <= row["menu"] + _SLACK
                    and row["menu"] <= row["personalized"] + _SLACK
                ),
            ),
        )
    ]


SECTION = Section(
    "monopoly",
    "Monopoly: public, menu, personalized",
    "What a single provider gets by one public experiment, by a menu of experiments from which "
    "users choose, and by a menu for each user; all by linear programs with certified bounds. A "
    "menu is what an anonymous conversation can be: she says who she is, if that is in her "
    "interest.",
    _compute,
    _figures,
    _claims,
)
