"""Families of markets, held to the independent oracle from the results file alone."""

import argparse
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.special import softmax

from diffgame.batch._quantal_end import merge_posteriors
from diffgame.batch._search_command import add_arguments, run
from diffgame.market._quantal_replies import signal_from_posteriors

from . import oracle
from .quantal import concave_closure, payoffs

TOLERANCE = 1e-6
# Programs of the oracle are solved to 1e-10, payoffs summed over three users of mass up to 2.
SLACK = 1e-8
DEGREES = """
format = "diffgame.search/1"
games = 40
seed = 11
lanes = 8
[market]
mode = ["partial", "anonymous"]
segments = 2
users = 3
providers = 2
actions = 2
states = 2
misalignment = [0.0, 0.3]
mass = [0.5, 2.0]
"""
QUANTAL = """
format = "diffgame.search/1"
games = 4
seed = 5
[market]
users = 1
providers = 2
actions = 2
states = 2
misalignment = [0.0, 0.3]
mass = [0.5, 2.0]
temperature = { least = 0.1, greatest = 0.5 }
"""


def search(folder: Path, text: str):
    """The results file of a search, read again without diffgame."""
    import xarray

    (folder / "spec.toml").write_text(text)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args([str(folder / "spec.toml"), str(folder / "out.nc")]))
    with xarray.open_dataset(folder / "out.nc", engine="h5netcdf") as file:
        return file.load()


@pytest.fixture(scope="module")
def degrees(tmp_path_factory):
    return search(tmp_path_factory.mktemp("degrees"), DEGREES)


@pytest.fixture(scope="module")
def quantal(tmp_path_factory):
    return search(tmp_path_factory.mktemp("quantal"), QUANTAL)


def follow(game, provider: int, user: int) -> np.ndarray:
    """Joint distribution [actions, states] if the user does what the provider's messages ask."""
    signal = game.signal.values[provider, int(game.group[user])]
    joint = np.zeros(game.utility.shape[1:])
    for message, action in enumerate(game.recommended.values[user].tolist()):
        if action >= 0:
            joint[action] += game.prior.values * signal[message]
    return joint


def gains(game) -> np.ndarray:
    """What every provider gains by its best response, by HiGHS, as shares of their ranges."""
    prior, utility, objective = game.prior.values, game.utility.values, game.objective.values
    mass, chosen = game.mass.values, game.chosen.values.astype(int)
    providers, users = objective.shape[:2]
    taken = [[follow(game, i, j) for j in range(users)] for i in range(providers)]
    values = np.array([[np.sum(utility[j] * taken[i][j]) for j in range(users)] for i in (0, 1)])
    found = np.zeros(providers)
    for i, label in np.ndindex(providers, int(game.group.max()) + 1):
        members = np.flatnonzero(game.group.values == label)
        outside, fallback = [], []
        for j in members:
            (other,) = [k for k in range(providers) if k != i]
            outside.append(values[other, j])
            fallback.append(taken[other][j])
        best, _, _ = oracle.best_response(
            [utility[j] for j in members],
            [objective[i, j] for j in members],
            prior,
            outside,
            fallback,
            mass[members],
        )
        found[i] += best - sum(
            mass[j] * np.sum(objective[i, j] * taken[chosen[j]][j]) for j in members
        )
    return found / (np.ptp(objective, axis=(2, 3)) @ mass)


def test_signals_are_signals_and_users_follow_them_gladly(degrees):
    for number in range(40):
        game = degrees.isel(game=number)
        for provider, user in np.ndindex(2, 3):
            signal = game.signal.values[provider, int(game.group[user])]
            # The results' axis has room for the messages of the largest group.
            signal = signal[~np.isnan(signal[:, 0])]
            assert np.all(signal >= 0), number
            np.testing.assert_allclose(signal.sum(axis=0), 1, atol=1e-9, err_msg=str(number))
            asked = np.sum(game.utility.values[user] * follow(game, provider, user))
            best = oracle.user_value(signal.T, game.prior.values, game.utility.values[user])
            assert asked == pytest.approx(best, abs=1e-8), number
        for user in range(3):
            there = [np.sum(game.utility.values[user] * follow(game, i, user)) for i in (0, 1)]
            # Users stay within 1e-9 of the best, and the file says what they get there.
            assert there[int(game.chosen[user])] >= max(there) - 2e-9, number
            assert float(game.user_values[user]) == pytest.approx(max(there), abs=1e-8), number


def test_groups_are_what_the_file_asks_for(degrees):
    assert degrees.segments.values.tolist() == [2] * 20 + [1] * 20
    sizes = [sorted(np.bincount(labels).tolist()) for labels in degrees.group.values]
    assert sizes == [[1, 2]] * 20 + [[3]] * 20
    alone = np.argmax(degrees.group.values[:20] == 1, axis=1)
    assert set(alone.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("degree", ["partial", "anonymous"])
def test_gains_are_the_oracles(degrees, degree):
    part = degrees.isel(game=slice(0, 20) if degree == "partial" else slice(20, 40))
    statuses = part.status.values.tolist()
    assert statuses.count("certified") >= 10
    for number in range(20):
        game = part.isel(game=number)
        most = gains(game).max()
        if statuses[number] == "certified":
            assert most <= TOLERANCE + SLACK, (number, most)
        else:
            assert statuses[number] == "exploitable", number
            assert most > TOLERANCE, (number, most)
            assert most == pytest.approx(float(game.gain), abs=1e-6), number


def test_payoffs_are_the_oracles(degrees):
    for number in range(40):
        game = degrees.isel(game=number)
        chosen = game.chosen.values.astype(int)
        taken = np.stack([follow(game, chosen[j], j) for j in range(3)])
        expected = np.einsum("ijas,jas,j->i", game.objective, taken, game.mass)
        np.testing.assert_allclose(game.payoffs, expected, atol=1e-9, err_msg=str(number))


def grid_gain(game, parts: int = 400, levels: int = 60) -> float:
    """The most that a provider gains with posteriors on a grid, in NumPy and by HiGHS."""
    from scipy.optimize import linprog

    prior, heat = game.prior.values, float(game.temperature)
    utility, objective = game.utility.values[0], game.objective.values[:, 0]
    share = np.linspace(0, 1, parts + 1)
    points = np.stack([1 - share, share], axis=1)

    def hear(table):
        joint = prior[:, None] * table
        reach = joint.sum(axis=0)
        joint, reach = joint[:, reach > 0], reach[reach > 0]
        posteriors = (joint / reach).T
        own = reach @ payoffs(posteriors, utility, utility, heat)
        return own, [reach @ payoffs(posteriors, utility, worth, heat) for worth in objective]

    # Messages lead in the file.
    heard = [hear(game.signal.values[i, 0].T) for i in (0, 1)]
    values = np.array([value for value, _ in heard])
    worth = np.array([table for _, table in heard])
    shares = softmax(values / heat)
    assert float(game.user_values[0]) == pytest.approx(shares @ values, abs=1e-9)
    np.testing.assert_allclose(game.payoffs, float(game.mass[0]) * shares @ worth, atol=1e-9)
    gain = 0.0
    for i in (0, 1):
        own, pays = (payoffs(points, utility, table, heat) for table in (utility, objective[i]))
        top, bottom = concave_closure(prior, points, own), -concave_closure(prior, points, -own)
        for level in np.linspace(bottom + 1e-9, top - 1e-9, levels):
            rows = np.vstack([points.T, own])
            found = linprog(-pays, A_eq=rows, b_eq=np.append(prior, level), method="highs")
            assert found.status == 0
            comes = softmax(np.array([level, values[1 - i]]) / heat)
            reached = comes @ np.array([-found.fun, worth[1 - i, i]])
            gain = max(gain, (reached - shares @ worth[:, i]) / np.ptp(objective[i]))
    return gain


@pytest.mark.campaign
def test_quantal_ends_are_certified_and_nothing_on_a_grid_beats_them(quantal):
    assert quantal.status.values.tolist() == ["certified"] * 4
    assert np.all((quantal.temperature >= 0.1) & (quantal.temperature <= 0.5))
    assert np.all(quantal.gain <= TOLERANCE)
    for number in range(4):
        game = quantal.isel(game=number)
        np.testing.assert_allclose(game.signal.sum("message"), 1, atol=1e-9)
        assert grid_gain(game) <= TOLERANCE + SLACK, number


@pytest.mark.campaign
def test_the_grid_finds_what_babbling_leaves(quantal):
    """The check above can fail: where nobody says anything, somebody gains by speaking."""
    silent = np.zeros(quantal.signal.shape)
    silent[:, :, :, 0] = 1
    found = []
    for number in range(4):
        game = quantal.isel(game=number).assign(signal=(quantal.signal.dims[1:], silent[number]))
        prior, utility = game.prior.values, game.utility.values[0]
        acts = softmax(utility @ prior / float(game.temperature))
        worth = game.objective.values[:, 0] @ prior @ acts
        game["user_values"] = ("user", [acts @ (utility @ prior)])
        game["payoffs"] = ("provider", float(game.mass[0]) * worth)
        found.append(grid_gain(game, parts=50, levels=20))
    assert max(found) > 1e-3


def test_posteriors_are_merged_as_the_markets_replies_merge_them():
    merge = jax.jit(merge_posteriors, static_argnums=2)
    rng = np.random.default_rng(0)
    for number in range(20):
        posteriors = rng.dirichlet(np.ones(2), size=6)
        posteriors[3] = posteriors[1] + np.array([0.001, -0.001])
        posteriors = np.clip(posteriors, 0, 1)
        weights = rng.dirichlet(np.ones(6)) * (rng.uniform(size=6) < 0.8)
        weights[0] += 0.1
        expected = signal_from_posteriors(posteriors, weights, 3)
        np.testing.assert_allclose(
            merge(posteriors, weights, 3), expected, atol=1e-12, err_msg=str(number)
        )
