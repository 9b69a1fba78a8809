"""Sup-norm distances: equality with linear programs over all items at once, and their bounds."""

import numpy as np
import pytest
import scipy.optimize

from diffgame.preferences import strong_distance, sup_distances
from diffgame.preferences._distance import KINDS, working_size

PEOPLE, PROVIDERS, ITEMS = 6, 3, 120


def tables(seed: int):
    rng = np.random.default_rng(seed)
    utilities = rng.normal(size=(PROVIDERS, ITEMS)) + rng.normal(size=(PROVIDERS, 1))
    values = rng.exponential(size=(PEOPLE, PROVIDERS)) @ utilities
    values += rng.normal(size=(PEOPLE, ITEMS)) + 1
    observed = rng.random((PEOPLE, ITEMS)) < 0.7
    observed[0] = True
    return values, observed, utilities


def nearest(values, utilities, *, hull: bool, constant: bool) -> float:
    """Least eps with |weights @ utilities + offset - values| <= eps, by HiGHS."""
    providers, items = utilities.shape
    mix = np.hstack([utilities.T, np.full((items, 1), 1.0 * constant)])
    rows = np.vstack([np.hstack([s * mix, -np.ones((items, 1))]) for s in (1, -1)])
    cost = np.zeros(providers + 2)
    cost[-1] = 1
    equal = np.array([[1.0] * providers + [0, 0]])
    found = scipy.optimize.linprog(
        cost,
        rows,
        np.concatenate([values, -values]),
        equal if hull else None,
        [1] if hull else None,
        [(0, None)] * providers + [(None, None), (0, None)],
    )
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("seed", [0, 1])
def test_distances_are_those_of_the_programs_over_all_items(seed: int):
    values, observed, utilities = tables(seed)
    assert working_size(observed, PROVIDERS, 1) < ITEMS, "the programs must not hold all items"
    found = sup_distances(np.where(observed, values, 0), observed, utilities)
    for kind in KINDS:
        record = found[kind]
        assert record["certified"].all()
        for k in range(PEOPLE):
            seen = observed[k]
            expected = nearest(
                values[k, seen],
                utilities[:, seen],
                hull=kind.startswith("hull"),
                constant=kind.endswith("constant"),
            )
            assert abs(record["upper"][k] - expected) <= 1e-8, (kind, k)
            assert record["lower"][k] <= expected + 1e-9, (kind, k)
            # The weights attain the upper bound on the items observed.
            rest = record["weights"][k] @ utilities + record["offset"][k] - values[k]
            assert np.abs(rest[seen]).max() <= record["upper"][k] + 1e-12
            assert record["weights"][k].min() >= 0


def test_an_exact_mix_has_distance_zero():
    _, observed, utilities = tables(2)
    weights = np.random.default_rng(3).dirichlet(np.ones(PROVIDERS), size=PEOPLE)
    found = sup_distances(weights @ utilities, observed, utilities)
    for kind in KINDS:
        assert (found[kind]["upper"] <= 1e-9).all()
        assert found[kind]["certified"].all()


def strong_by_highs(values, observed, utilities, mass) -> float:
    groups, providers = len(values), len(utilities)
    rows, right = [], []
    for j in range(groups):
        for t in np.flatnonzero(observed[j]):
            own, offset = np.zeros(groups), np.zeros(groups)
            own[j], offset[j] = -values[j, t], 1
            row = np.concatenate([mass[j] * utilities[:, t], own, offset])
            rows += [np.append(row, -1), np.append(-row, -1)]
            right += [0, 0]
    cost = np.zeros(providers + 2 * groups + 1)
    cost[-1] = 1
    bounds = [(0, None)] * providers + [(1, None)] * groups + [(None, None)] * groups + [(0, None)]
    found = scipy.optimize.linprog(cost, np.array(rows), right, bounds=bounds)
    assert found.status == 0
    return found.fun


@pytest.mark.parametrize("seed", [0, 1])
def test_strong_distance_is_that_of_the_program_over_all_items(seed: int):
    values, observed, utilities = tables(seed)
    mass = np.random.default_rng(seed).dirichlet(np.full(PEOPLE, 5.0))
    found = strong_distance(np.where(observed, values, 0), observed, utilities, mass)
    expected = strong_by_highs(values, observed, utilities, mass)
    assert found["certified"]
    assert abs(found["upper"] - expected) <= 1e-7
    assert found["scales"].min() >= 1
    assert found["weights"].min() >= 0
    mix = mass[:, None] * (found["weights"] @ utilities)[None]
    rest = mix + found["offset"][:, None] - found["scales"][:, None] * values
    assert np.abs(rest[observed]).max() <= found["upper"] + 1e-12


def test_one_mix_serves_groups_that_differ_by_scale_and_offset_only():
    _, observed, utilities = tables(4)
    taste = np.array([0.2, 0.5, 0.3]) @ utilities
    values = np.linspace(1, 2, PEOPLE)[:, None] * taste[None] + np.arange(PEOPLE)[:, None]
    found = strong_distance(values, observed, utilities, np.full(PEOPLE, 1 / PEOPLE))
    assert found["upper"] <= 1e-7
    assert found["certified"]
