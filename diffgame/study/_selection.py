"""Best-response dynamics when users select the best AI: with the hull condition and without."""

from collections.abc import Callable, Sequence
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..market import alignment_distances, full_information
from ..market._best_response import meet, outside_options
from ..market._dynamics import recommend, respond_by_frontier
from ..market._equilibrium_values import equilibrium_segment
from ..market._frontier import find_frontiers
from ._draw import COLOURS, figure, scatter
from ._section import Claim, Row, Section, StudySettings

_TURNS = 30
_PROVIDERS = 3


def _run(
    prior: Float[Array, " states"],
    utility: Float[Array, "actions states"],
    objective: Float[Array, "providers actions states"],
):
    """A user's value after each turn of plain best responses from babbling, and what is aligned."""
    segment = equilibrium_segment(prior, utility, objective)
    frontiers = find_frontiers(segment)
    silent = recommend(segment, jnp.ones((len(prior), 1)))
    start = jnp.broadcast_to(silent, (len(objective), *silent.shape)), jnp.zeros(1, int)

    def turn(carry, number):
        signal, incumbent = carry
        provider = number % len(objective)
        meeting = meet(segment, signal, incumbent)
        outside = outside_options(segment, meeting, provider)
        reached, post, captured = respond_by_frontier(frontiers, provider, outside)
        moves = reached - jnp.sum(meeting.payoffs[provider]) > 1e-7
        post = jnp.where(jnp.any(captured), post, silent)
        signal = signal.at[provider].set(jnp.where(moves, post, signal[provider]))
        after = meet(segment, signal, meeting.chosen)
        return (signal, after.chosen), jnp.max(after.values)

    _, values = jax.lax.scan(turn, start, jnp.arange(_TURNS))
    low, size = jnp.min(utility), jnp.ptp(utility)
    distance = alignment_distances(utility, objective)["hull_constant"].distance
    fine = jnp.all(frontiers.complete)
    return low + size * values, full_information(prior, utility), distance, fine


_run_all = eqx.filter_jit(jax.vmap(_run))


def _draw(settings: StudySettings, count: int, held: bool):
    rng = np.random.default_rng((settings.seed, 4, int(held)))
    prior = rng.dirichlet(np.full(3, 3.0), size=count)
    objective = rng.uniform(size=(count, _PROVIDERS, 3, 3))
    if held:
        weights = rng.dirichlet(np.ones(_PROVIDERS), size=count)
        utility = np.einsum("ni,nias->nas", weights, objective)
    else:
        # All providers share an aim that is not hers.
        utility = rng.uniform(size=(count, 3, 3))
        aim = rng.uniform(size=(count, 1, 3, 3)) - utility[:, None]
        objective = aim + 0.2 * rng.uniform(size=objective.shape)
    return prior, utility, objective


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    count = settings.count(100)
    for held in (True, False):
        progress(f"dynamics, hull condition {'held' if held else 'violated'}")
        found = _run_all(*map(jnp.asarray, _draw(settings, count, held)))
        values, full, distance, fine = map(np.asarray, found)
        for n in range(count):
            rows.append(
                {
                    "hull": "held" if held else "violated",
                    "number": n,
                    "distance": float(distance[n]),
                    "share at start": float(values[n, 0] / full[n]),
                    "share after a round": float(values[n, _PROVIDERS - 1] / full[n]),
                    "share at the end": float(values[n, -1] / full[n]),
                    "largest fall": float(max(0.0, -np.diff(values[n]).min() / full[n])),
                    "status": "certified" if fine[n] else "local",
                }
            )
    return rows


def _of(rows: Sequence[Row], hull: str) -> list[Row]:
    return [row for row in rows if row["hull"] == hull]


def _figures(rows: Sequence[Row]):
    from plotly import graph_objects

    ends = [
        graph_objects.Box(
            x=[name for name in ("after a round", "at the end") for _ in part],
            y=[row[f"share {name}"] for name in ("after a round", "at the end") for row in part],
            name=f"hull condition {hull}",
            marker={"color": COLOURS[colour]},
        )
        for colour, hull in enumerate(("held", "violated"))
        for part in (_of(rows, hull),)
    ]
    boxes = figure(ends, "", "user's value as a share of full information")
    boxes.update_layout(boxmode="group")
    make = partial(scatter, x="distance", y="share at the end")
    points = [
        make(_of(rows, hull), name=f"hull condition {hull}", colour=colour)
        for colour, hull in enumerate(("held", "violated"))
    ]
    return [boxes, figure(points, "distance to the hull", "share at the end")]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    sure = {
        hull: [r for r in _of(rows, hull) if r["status"] == "certified"]
        for hull in ("held", "violated")
    }
    means = {
        hull: float(np.mean([row["share at the end"] for row in part])) if part else float("nan")
        for hull, part in sure.items()
    }
    decided = all(sure.values())
    return [
        Claim(
            "Best-response dynamics of providers among whom users select the best serve users when "
            "their utility lies in the hull of the providers', and not always when it does not",
            f"{len(sure['held'])} and {len(sure['violated'])} random users, {_TURNS} turns",
            f"mean share of full information {means['held']:.3f} with the hull condition, "
            f"{means['violated']:.3f} without",
            means["held"] > means["violated"] if decided else None,
        )
    ]


SECTION = Section(
    "selection",
    "Dynamics of selection",
    "Three providers best respond in turn, from babbling, to a user who takes the best of them; "
    "best responses are exact. With the hull condition her utility is a mix of theirs; without it "
    "all three share an aim of their own. Plain best responses need not end: her value can fall "
    "again when the provider that holds her has no rival left. What is shown is a path, not an "
    "equilibrium; certified means here that every best response on it is exact.",
    _compute,
    _figures,
    _claims,
)
