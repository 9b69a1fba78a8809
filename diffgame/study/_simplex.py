"""Where users stand among providers: the alignment simplex."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import numpy as np

from ..market import alignment_distances
from ._draw import COLOURS, symbols_of
from ._markets import draw_market
from ._section import Claim, Row, Section, StudySettings, certified, decide

_NOISES = (0.0, 0.3, 0.6)


@eqx.filter_jit
def _weights(utility, objective):
    found = jax.vmap(alignment_distances, in_axes=(0, 1))(utility, objective)
    hull, cone = found["hull_state"], found["cone_state"]
    return hull.weights, hull.distance, cone.distance, hull.certified & cone.certified


def _compute(settings: StudySettings, progress: Callable[[str], None]) -> list[Row]:
    rows = []
    users = settings.count(40, 6)
    for step, noise in enumerate(_NOISES):
        progress(f"users with noise {noise}")
        market = draw_market((settings.seed, 8, step), noise, users=users, providers=3, states=3)
        weights, hull, cone, fine = map(np.asarray, _weights(market.utility, market.objective))
        rows += [
            {
                "noise": noise,
                "user": j,
                "weight 1": float(weights[j, 0]),
                "weight 2": float(weights[j, 1]),
                "weight 3": float(weights[j, 2]),
                "distance to the hull": float(hull[j]),
                "distance to the cone": float(cone[j]),
                "status": "certified" if fine[j] else "local",
            }
            for j in range(users)
        ]
    return rows


def _figures(rows: Sequence[Row]):
    from plotly import graph_objects

    traces = []
    for colour, noise in enumerate(_NOISES):
        part = [row for row in rows if row["noise"] == noise]
        traces.append(
            graph_objects.Scatterternary(
                a=[row["weight 1"] for row in part],
                b=[row["weight 2"] for row in part],
                c=[row["weight 3"] for row in part],
                mode="markers",
                name=f"noise {noise}",
                text=[f"distance {row['distance to the hull']:.3f}" for row in part],
                marker={
                    "color": COLOURS[colour],
                    "size": [6 + 24 * row["distance to the hull"] for row in part],
                    "symbol": symbols_of(part),
                    "opacity": 0.7,
                },
            )
        )
    made = graph_objects.Figure(traces)
    corners = {f"{axis}axis": {"title": f"provider {n}"} for n, axis in enumerate("abc", 1)}
    made.update_layout(template="plotly_white", height=480, ternary={"sum": 1} | corners)
    return [made]


def _claims(rows: Sequence[Row]) -> list[Claim]:
    exact = [row for row in rows if row["noise"] == 0]
    return [
        Claim(
            "A user whose utility is a mix of the providers' objectives, moved and scaled, is at "
            "distance zero from their cone",
            f"{len(certified(exact))} users of a market without noise",
            f"largest distance {max(row['distance to the cone'] for row in exact):.1e}",
            decide(exact, lambda row: row["distance to the cone"] <= 1e-6),
        ),
        Claim(
            "The cone is never farther than the hull",
            f"{len(certified(rows))} users",
            "distances of both, with an offset per state",
            decide(
                rows,
                lambda row: row["distance to the cone"] <= row["distance to the hull"] + 1e-8,
            ),
        ),
    ]


SECTION = Section(
    "simplex",
    "The alignment simplex",
    "Each point is a user, placed by the weights on the three providers whose mix comes nearest "
    "to what she wants; larger points are farther away. Without noise all users want a mix, "
    "scaled to range from 0 to 1 like everybody's utility, which moves them out of the hull, but "
    "never out of the cone. Users outside are placed at the best weights all the same: look at "
    "the size before the place.",
    _compute,
    _figures,
    _claims,
)
