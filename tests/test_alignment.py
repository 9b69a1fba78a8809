"""Alignment distances: known mixes, bounds, and equality with the independent oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame.market import alignment_distances, strong_alignment_distances

from . import oracle

KINDS = [
    f"{shape}_{offset}" for shape in ("hull", "cone") for offset in ("none", "constant", "state")
]
ORACLE_OFFSET = {"none": "none", "constant": "const", "state": "state"}
CAMPAIGN = pytest.param(300, marks=pytest.mark.campaign)

weak = jax.jit(jax.vmap(jax.vmap(alignment_distances, in_axes=(0, 1))))
strong = jax.jit(jax.vmap(strong_alignment_distances))


def distance_at(utility, objective, weights, offset):
    mix = np.einsum("p,pas->as", weights, objective) + offset[None]
    return np.abs(mix - utility).max()


@pytest.mark.parametrize("count", [40, CAMPAIGN])
def test_weak_distances_equal_the_oracle_on_random_markets(count):
    markets = oracle.mixed_markets(count)
    _, _, utility, objective = oracle.batched(markets)
    found = weak(utility, objective)
    assert sorted(found) == sorted(KINDS)
    worst, compared = 0.0, 0
    for kind, ours in found.items():
        shape, offset = kind.split("_")
        for seed, (_, _, us, U) in enumerate(markets):
            for j, u in enumerate(us):
                expected, _ = oracle.align_dist(u, list(U[:, j]), shape, ORACLE_OFFSET[offset])
                error = abs(float(ours.distance[seed, j]) - expected)
                assert error <= 1e-7, f"{kind}, seed={seed}, user {j}"
                assert ours.certified[seed, j], f"{kind}, seed={seed}, user {j}"
                worst, compared = max(worst, error), compared + 1
        assert np.all(ours.lower <= ours.distance)
        assert np.all(ours.distance - ours.lower <= 1e-9)
    print(f"{compared} weak distances compared, worst difference {worst:.1e}")


@pytest.mark.parametrize("count", [40, CAMPAIGN])
def test_strong_distances_equal_the_oracle_on_random_markets(count):
    markets = oracle.mixed_markets(count)
    _, mass, utility, objective = oracle.batched(markets)
    found = strong(utility, objective, mass)
    worst, compared = 0.0, 0
    for kind, ours in found.items():
        for seed, (_, rho, us, U) in enumerate(markets):
            weighted = [list(rho[:, None, None] * own) for own in U]
            expected = oracle.strong_align_dist(list(us), weighted, ORACLE_OFFSET[kind])[0]
            error = abs(float(ours.distance[seed]) - expected)
            assert error <= 1e-7, f"{kind}, seed={seed}"
            assert ours.certified[seed], f"{kind}, seed={seed}"
            worst, compared = max(worst, error), compared + 1
    print(f"{compared} strong distances compared, worst difference {worst:.1e}")


def test_a_distance_is_the_one_at_the_weights_and_offset_returned():
    _, mass, utility, objective = oracle.batched(oracle.mixed_markets(24))
    for kind, ours in weak(utility, objective).items():
        for b in range(24):
            for j in range(utility.shape[1]):
                weights, offset = ours.weights[b, j], ours.offset[b, j]
                at = distance_at(utility[b, j], objective[b, :, j], weights, offset)
                assert ours.distance[b, j] == pytest.approx(at, abs=1e-14)
                assert np.all(weights >= 0)
                if kind.startswith("hull"):
                    assert jnp.sum(weights) == pytest.approx(1, abs=1e-14)
                if not kind.endswith("state"):
                    assert np.ptp(offset) == 0
                if kind.endswith("none"):
                    assert np.all(offset == 0)
    for kind, ours in strong(utility, objective, mass).items():
        for b in range(24):
            assert np.all(ours.weights[b] >= 0)
            assert np.all(ours.scales[b] >= 1)
            at = max(
                distance_at(scale * u, own * rho, ours.weights[b], offset)
                for u, own, rho, scale, offset in zip(
                    utility[b],
                    objective[b].swapaxes(0, 1),
                    mass[b],
                    ours.scales[b],
                    ours.offset[b],
                    strict=True,
                )
            )
            assert ours.distance[b] == pytest.approx(at, abs=1e-13)
            assert kind == "state" or np.all(np.ptp(ours.offset[b], axis=-1) == 0)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_degenerate_objectives_and_any_units(scale):
    rng = np.random.default_rng(0)
    u = rng.uniform(size=(3, 3))
    zero, one = np.zeros((3, 3)), np.ones((3, 3))
    cases = [
        [u, u, u],
        [zero, zero, zero],
        [one, 2 * one, 3 * one],
        [-u, -u, -2 * u],
        [zero, u, one],
    ]
    utility = scale * np.stack([u] * len(cases))[None]
    objective = scale * np.swapaxes(np.stack(cases), 0, 1)[None]
    for kind, ours in weak(utility, objective).items():
        shape, offset = kind.split("_")
        for j, case in enumerate(cases):
            expected, _ = oracle.align_dist(u, case, shape, ORACLE_OFFSET[offset])
            assert ours.distance[0, j] / scale == pytest.approx(expected, abs=1e-9), (kind, j)
            assert ours.certified[0, j]


def test_offsets_absorb_what_users_cannot_influence():
    rng = np.random.default_rng(1)
    u = rng.uniform(size=(3, 3))
    by_state, constant = u + rng.uniform(size=(1, 3)), u + 7
    utility = np.stack([u] * 2 + [-u])[None]
    objective = np.stack([by_state, constant, by_state])[None, None].repeat(3, 1)
    found = weak(utility, objective)
    assert np.allclose(found["hull_state"].distance[0, :2], 0, atol=1e-10)
    assert np.allclose(found["cone_state"].distance[0, :2], 0, atol=1e-10)
    assert np.allclose(found["cone_constant"].distance[0, 1], 0, atol=1e-10)
    assert found["hull_none"].distance[0, 1] > 0.1
    assert found["cone_state"].distance[0, 2] > 0.1


def common_interest(kappa):
    """Two users who want the same; each provider serves one and works against the other (E2)."""
    u = np.eye(2)
    return (
        np.full(2, 0.5),
        np.ones(2),
        np.stack([u, u]),
        np.array([[u, -kappa * u], [-kappa * u, u]]),
    )


def test_opposed_users_are_weakly_and_not_strongly_aligned():
    """Every user has a provider of her own; nobody serves both (E1)."""
    us = np.stack(oracle.opposed_users())
    market = np.full(2, 0.5), np.ones(2), us, np.stack([us[[0, 0]], us[[1, 1]]])
    _, mass, utility, objective = (part[None] for part in oracle.padded(market, 3, 3, 3, 3))
    for kind, ours in weak(utility, objective).items():
        assert np.all(ours.distance <= 1e-10), kind
        if kind.startswith("cone"):
            assert ours.weights[0, 1] == pytest.approx([0, 1, 0], abs=1e-9), kind
    for kind, ours in strong(utility, objective, mass).items():
        assert ours.lower[0] > 1, kind


@pytest.mark.parametrize("kind", ["constant", "state"])
def test_common_interest_is_strongly_aligned_below_kappa_1_only(kind):
    kappas = [0.5, 0.8, 0.9, 1, 1.1, 2, 3]
    markets = [oracle.padded(common_interest(kappa), 3, 3, 3, 3) for kappa in kappas]
    _, mass, utility, objective = oracle.batched(markets)
    ours = strong(utility, objective, mass)[kind]
    assert np.all(ours.certified)
    for b, kappa in enumerate(kappas):
        if kappa < 1:
            assert ours.distance[b] <= 1e-9
            needed = 1 / (1 - kappa)
            assert ours.weights[b, 0] + ours.weights[b, 2] >= needed * (1 - 1e-9)
            assert ours.weights[b, 1] >= needed * (1 - 1e-9)
        else:
            assert ours.lower[b] == pytest.approx(0.5, abs=1e-9)
