"""Nearest mixes of providers for many people: batched in JAX against SciPy one by one."""

import time
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffgame.preferences import Ratings, align_ratings, check_mix, mix_weights

from ._harness import Row, arguments, compile_batched, machine, median_seconds, report, require

AGREES = 1e-8


def draw(people: int, items: int, providers: int, seed: int = 0):
    """Ratings from 1 to 5 with seven of ten missing, and utilities that share six tastes."""
    rng = np.random.default_rng(seed)
    tastes = rng.normal(size=(6, items))
    utilities = rng.normal(size=(providers, 6)) @ tastes + rng.normal(size=(providers, items))
    wanted = 0.5 * rng.normal(size=(people, 6)) @ tastes + rng.normal(size=(people, items))
    values = np.clip(3 + 0.5 * wanted, 1, 5)
    return np.where(rng.uniform(size=values.shape) < 0.7, np.nan, values), utilities


def compare_fits(people: int, items: int, providers: int) -> Row:
    """Least squares with nonnegative weights, per person, on the items that she rated."""
    optimize = require("scipy.optimize")
    values, utilities = draw(people, items, providers)
    seen = np.isfinite(values)
    table, everyone = jnp.asarray(utilities), jnp.ones((1, providers), bool)
    plain = jnp.array(False)

    def fit(values, mask):
        weights = mix_weights(values, mask, table, everyone, plain)["cone"][0]
        found = check_mix(values, mask, table, weights, everyone[0], plain, hull=False)
        return found.error, found.certified

    ours = compile_batched(fit, jnp.asarray(np.where(seen, values, 0)), jnp.asarray(1.0 * seen))
    error, certified = ours.all_cores()
    seconds = median_seconds(ours.all_cores)
    measured = min(people, 60)
    begin = time.perf_counter()
    norms = [
        optimize.nnls(utilities[:, mask].T, own[mask])[1]
        for own, mask in zip(values[:measured], seen[:measured], strict=True)
    ]
    peer = (time.perf_counter() - begin) / measured * people
    theirs = np.array(norms) / np.sqrt(seen[:measured].sum(axis=1))
    agrees = np.abs(theirs - error[:measured]) <= AGREES * (1 + theirs)
    return Row(
        f"cone fit, {items} items x {providers}",
        people,
        seconds,
        "scipy.optimize.nnls, one after another",
        peer,
        float(np.mean(certified)),
        float(np.mean(agrees)),
        ours.compile_seconds,
        measured,
        "the peer's column: share with the same error as ours to 1e-8",
    )


def time_alignment(people: int, items: int, providers: int) -> str:
    """All that `diffgame align` computes, compilation included."""
    values, utilities = draw(people, items, providers)
    names = tuple(str(n) for n in range(max(people, items, providers)))
    ratings = Ratings("drawn", names[:people], names[:items], (1.0, 5.0), values)
    begin = time.perf_counter()
    found = align_ratings(ratings, names[:providers], utilities)["certified"]
    seconds = time.perf_counter() - begin
    return (
        f"align_ratings, {people} people x {items} items x {providers} providers: {seconds:.1f} s "
        f"with compilation; certified {found['squared_error']} of {found['squared_error_of']} "
        f"mixes, {found['sup_norm']} of {found['sup_norm_of']} largest errors"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run what the command line asks for."""
    options = arguments("preferences", "Fits to ratings against SciPy, one after another.")
    options = options.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    size = (30, 40, 5) if options.quick else (1000, 1700, 100)
    row = compare_fits(*size)
    report([row], machine(["scipy"]), options.json)
    if not options.quick:
        print(time_alignment(*size))


if __name__ == "__main__":
    main()
