"""Alignment distances: known mixes, bounds, and equality with the independent oracle."""

import jax
import numpy as np
import pytest

from diffgame.market import alignment_distances, strong_alignment_distances

from . import oracle
from .markets import batched, mixed_markets

KINDS = [
    f"{shape}_{offset}" for shape in ("hull", "cone") for offset in ("none", "constant", "state")
]
ORACLE_OFFSET = {"none": "none", "constant": "const", "state": "state"}
CAMPAIGN = pytest.param(300, marks=pytest.mark.campaign)

SHAPE, COUNT = (3, 3, 3, 3), 40

compiled_weak = jax.jit(jax.vmap(jax.vmap(alignment_distances, in_axes=(0, 1))))
compiled_strong = jax.jit(jax.vmap(strong_alignment_distances))


def weak(markets):
    """Distances [markets, users] of all six kinds, in a batch of a fixed size."""
    _, _, utility, objective = batched(markets, SHAPE, COUNT)
    return jax.device_get(compiled_weak(utility, objective))


def strong(markets):
    """Distances [markets] of both kinds, in a batch of a fixed size."""
    _, mass, utility, objective = batched(markets, SHAPE, COUNT)
    return jax.device_get(compiled_strong(utility, objective, mass))


def distance_at(utility, objective, weights, offset):
    mix = np.einsum("p,pas->as", weights, objective) + offset[None]
    return np.abs(mix - utility).max()


@pytest.mark.parametrize("count", [COUNT, CAMPAIGN])
def test_weak_distances_equal_the_oracle_on_random_markets(count):
    markets = mixed_markets(count)
    found = weak(markets)
    assert sorted(found) == sorted(KINDS)
    worst, compared = 0.0, 0
    for kind, ours in found.items():
        shape, offset = kind.split("_")
        for seed, (_, _, us, U) in enumerate(markets):
            for j, u in enumerate(us):
                expected, _ = oracle.align_dist(u, list(U[:, j]), shape, ORACLE_OFFSET[offset])
                error = abs(ours.distance[seed, j] - expected)
                assert error <= 1e-7, f"{kind}, seed={seed}, user {j}"
                assert ours.certified[seed, j], f"{kind}, seed={seed}, user {j}"
                worst, compared = max(worst, error), compared + 1
        assert np.all(ours.lower <= ours.distance)
        assert np.all(ours.distance - ours.lower <= 1e-9)
    print(f"{compared} weak distances compared, worst difference {worst:.1e}")


@pytest.mark.parametrize("count", [COUNT, CAMPAIGN])
def test_strong_distances_equal_the_oracle_on_random_markets(count):
    markets = mixed_markets(count)
    worst, compared = 0.0, 0
    for kind, ours in strong(markets).items():
        for seed, (_, rho, us, U) in enumerate(markets):
            weighted = [list(rho[:, None, None] * own) for own in U]
            expected = oracle.strong_align_dist(list(us), weighted, ORACLE_OFFSET[kind])[0]
            error = abs(ours.distance[seed] - expected)
            assert error <= 1e-7, f"{kind}, seed={seed}"
            assert ours.certified[seed], f"{kind}, seed={seed}"
            worst, compared = max(worst, error), compared + 1
    print(f"{compared} strong distances compared, worst difference {worst:.1e}")


def test_a_weak_distance_is_the_one_at_the_weights_and_offset_returned():
    markets = mixed_markets(COUNT)
    _, _, utility, objective = batched(markets, SHAPE)
    for kind, ours in weak(markets).items():
        mix = np.einsum("bjp,bpjas->bjas", ours.weights, objective) + ours.offset[:, :, None]
        at = np.abs(mix - utility).max((-2, -1))
        assert ours.distance == pytest.approx(at, abs=1e-12)
        assert np.all(ours.weights >= 0)
        if kind.startswith("hull"):
            assert ours.weights.sum(-1) == pytest.approx(1, abs=1e-12)
        if not kind.endswith("state"):
            assert np.all(np.ptp(ours.offset, axis=-1) == 0)
        if kind.endswith("none"):
            assert np.all(ours.offset == 0)


def test_a_strong_distance_is_the_one_at_the_weights_scales_and_offset_returned():
    markets = mixed_markets(COUNT)
    _, mass, utility, objective = batched(markets, SHAPE)
    for kind, ours in strong(markets).items():
        mix = np.einsum("bp,bj,bpjas->bjas", ours.weights, mass, objective)
        error = mix + ours.offset[:, :, None] - ours.scales[:, :, None, None] * utility
        assert ours.distance == pytest.approx(np.abs(error).max((1, 2, 3)), abs=1e-12)
        assert np.all(ours.weights >= 0)
        assert np.all(ours.scales >= 1)
        assert kind == "state" or np.all(np.ptp(ours.offset, axis=-1) == 0)


def alone(u, *own):
    """A market of one user and these providers."""
    return np.full(3, 1 / 3), np.ones(1), u[None], np.stack(own)[:, None]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_degenerate_objectives_and_any_units(scale):
    rng = np.random.default_rng(0)
    u = rng.uniform(size=(3, 3))
    zero, one = np.zeros((3, 3)), np.ones((3, 3))
    cases = [
        (u, u, u),
        (zero, zero, zero),
        (one, 2 * one, 3 * one),
        (-u, -u, -2 * u),
        (zero, u, one),
    ]
    found = weak([alone(scale * u, *(scale * own for own in case)) for case in cases])
    for kind, ours in found.items():
        shape, offset = kind.split("_")
        for b, case in enumerate(cases):
            expected, _ = oracle.align_dist(u, case, shape, ORACLE_OFFSET[offset])
            assert ours.distance[b, 0] / scale == pytest.approx(expected, abs=1e-9), (kind, b)
            assert ours.certified[b, 0], (kind, b)


def test_offsets_absorb_what_users_cannot_influence():
    rng = np.random.default_rng(1)
    u = rng.uniform(size=(3, 3))
    by_state, constant = u + rng.uniform(size=(1, 3)), u + 7
    found = weak([alone(u, by_state), alone(u, constant), alone(-u, by_state)])
    zero = {kind: ours.distance[:, 0] <= 1e-10 for kind, ours in found.items()}
    assert zero["hull_state"][:3].tolist() == [True, True, False]
    assert zero["cone_state"][:3].tolist() == [True, True, False]
    assert zero["hull_constant"][:3].tolist() == [False, True, False]
    assert zero["hull_none"][:3].tolist() == [False, False, False]


def common_interest(kappa):
    """Two users who want the same; each provider serves one and works against the other (E2)."""
    u = np.eye(2)
    objective = np.array([[u, -kappa * u], [-kappa * u, u]])
    return np.full(2, 0.5), np.ones(2), np.stack([u, u]), objective


def test_opposed_users_are_weakly_and_not_strongly_aligned():
    """Every user has a provider of her own; nobody serves both (E1)."""
    us = np.stack(oracle.opposed_users())
    market = np.full(2, 0.5), np.ones(2), us, np.stack([us[[0, 0]], us[[1, 1]]])
    for kind, ours in weak([market]).items():
        assert np.all(ours.distance[0] <= 1e-10), kind
        assert ours.weights[0, 1] == pytest.approx([0, 1, 0], abs=1e-9), kind
    for kind, ours in strong([market]).items():
        assert ours.lower[0] > 1, kind


@pytest.mark.parametrize("kind", ["constant", "state"])
def test_common_interest_is_strongly_aligned_below_kappa_1_only(kind):
    """Equal weights 1 / (1 - kappa) do it; at and above 1 no mix has the users' signs."""
    kappas = [0.5, 0.8, 0.9, 1, 1.1, 2, 3]
    ours = strong([common_interest(kappa) for kappa in kappas])[kind]
    assert np.all(ours.certified)
    for b, kappa in enumerate(kappas):
        if kappa < 1:
            assert ours.distance[b] <= 1e-9
            # The third provider repeats the first: padding.
            first, second = ours.weights[b, 0] + ours.weights[b, 2], ours.weights[b, 1]
            assert first - kappa * second == pytest.approx(ours.scales[b, 0], abs=1e-9)
            assert second - kappa * first == pytest.approx(ours.scales[b, 1], abs=1e-9)
        else:
            assert ours.lower[b] == pytest.approx(0.5, abs=1e-9)
