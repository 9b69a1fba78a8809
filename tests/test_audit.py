"""The audit: its structure, and every reported equilibrium checked again from the file alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from diffgame.market import AuditSettings, MarketFile, audit_market, read_market

from . import oracle

MARKETS = Path(__file__).parents[1] / "examples" / "markets"
SETTINGS = AuditSettings(starts=4)
RANDOM_SEED = 5


def random_market() -> MarketFile:
    """Two providers, two users of unequal mass, two states, three actions."""
    random = np.random.default_rng(RANDOM_SEED)
    return MarketFile(
        name=f"random, seed {RANDOM_SEED}",
        states=("s", "t"),
        actions=("a", "b", "c"),
        users=("u", "v"),
        providers=("p", "q"),
        segments=(None, None),
        prior=[0.4, 0.6],
        utility=random.uniform(size=(2, 3, 2)),
        objective=random.uniform(size=(2, 2, 3, 2)),
        mass=[1.0, 1.7],
    )


@pytest.fixture(scope="module", params=["opposed_users", "random"])
def audited(request):
    """A market and its audit after a journey through JSON, as a reader of the file has them."""
    name = request.param
    file = random_market() if name == "random" else read_market(MARKETS / f"{name}.json")
    return file, json.loads(json.dumps(audit_market(file, SETTINGS), allow_nan=False))


def joint(file, table, actions):
    """Distribution over actions and states when the user follows the recommendations."""
    x = np.zeros((len(file.actions), len(file.states)))
    for message, action in enumerate(actions):
        x[file.actions.index(action)] += file.prior * table[:, message]
    return x


def gains(file, found, mode):
    """What each provider gains by its best deviation, by the oracle's linear programs."""
    users, mu = range(len(file.users)), file.prior
    label = [name if mode == "personalized" else "everyone" for name in file.users]
    tables = [[np.array(found["policies"][who][label[j]]) for j in users] for who in file.providers]
    values = np.array(
        [[oracle.user_value(t, mu, file.utility[j]) for j, t in enumerate(own)] for own in tables]
    )
    chosen = [file.providers.index(found["choices"][name]["provider"]) for name in file.users]
    followed = [
        joint(file, tables[chosen[j]][j], found["choices"][name]["actions"])
        for j, name in enumerate(file.users)
    ]

    def without(deviator, j):
        others = [h for h in range(len(file.providers)) if h != deviator]
        best = max(values[h, j] for h in others)
        h = next((h for h in [chosen[j], *others] if h != deviator and values[h, j] >= best - 1e-7))
        own = tables[chosen[j]][j]
        same = tables[h][j].shape == own.shape and np.allclose(tables[h][j], own, atol=1e-9)
        outcome = followed[j] if same else oracle.outcome(tables[h][j], mu, file.utility[j])
        return best, outcome

    result = []
    for i in range(len(file.providers)):
        now = sum(file.mass[j] * np.sum(followed[j] * file.objective[i, j]) for j in users)
        outside = [without(i, j) for j in users]
        groups = [[j] for j in users] if mode == "personalized" else [list(users)]
        best = sum(
            oracle.best_response(
                [file.utility[j] for j in group],
                [file.objective[i, j] for j in group],
                mu,
                [outside[j][0] for j in group],
                [outside[j][1] for j in group],
                file.mass[group],
            )[0]
            for group in groups
        )
        result.append(best - now)
    return np.array(result), values, chosen, followed


@pytest.mark.parametrize("end", ["best", "worst"])
@pytest.mark.parametrize("mode", ["personalized", "anonymous"])
def test_every_reported_equilibrium_stands_up_to_the_oracle(audited, mode, end):
    file, report = audited
    found = report[mode][end]
    assert found["status"] == "certified"
    for own in found["policies"].values():
        for table in own.values():
            assert np.min(table) >= 0
            assert np.sum(table, axis=1) == pytest.approx(1, abs=1e-12)
    gain, values, chosen, followed = gains(file, found, mode)
    for j, name in enumerate(file.users):
        own = np.sum(followed[j] * file.utility[j])
        # Obedient: nothing is better than the recommendation; and she has the best provider.
        assert own == pytest.approx(values[chosen[j], j], abs=1e-8)
        assert own == pytest.approx(np.max(values[:, j]), abs=1e-8)
        assert own == pytest.approx(found["user_values"][name], abs=1e-9)
    for i, who in enumerate(file.providers):
        worth = [file.mass[j] * np.sum(x * file.objective[i, j]) for j, x in enumerate(followed)]
        assert sum(worth) == pytest.approx(found["provider_payoffs"][who], abs=1e-9)
    scale = np.sum(np.ptp(file.objective, axis=(2, 3)) * file.mass, axis=1)
    assert np.all(gain <= 1e-6 * scale), (file.name, gain)


def test_worst_never_falls_below_the_exact_range(audited):
    file, report = audited
    for user in file.users:
        low, high = report["personalized"]["equilibrium_range"][user]
        for end in ("best", "worst"):
            assert low - 1e-7 <= report["personalized"][end]["user_values"][user] <= high + 1e-7


def test_the_structure_is_the_documented_one(audited):
    file, report = audited
    assert list(report) == [
        "market", "settings", "users", "strong_alignment", "personalized", "anonymous",
    ]  # fmt: skip
    assert set(report["users"]) == set(file.users)
    kinds = {f"{hull}_{offset}" for hull in ("hull", "cone") for offset in
             ("none", "constant", "state")}  # fmt: skip
    for facts in report["users"].values():
        assert set(facts) == {"full_information", "uninformed", "alignment"}
        assert set(facts["alignment"]) == kinds
    assert set(report["strong_alignment"]) == {"constant", "state"}
    common = {
        "worst_case_loss", "babbling_is_equilibrium", "babbling_gain", "best", "worst",
        "certified", "searched",
    }  # fmt: skip
    assert set(report["anonymous"]) == common
    assert common | {"equilibrium_range"} <= set(report["personalized"])
    for mode, label in (("personalized", set(file.users)), ("anonymous", {"everyone"})):
        end = report[mode]["worst"]
        assert set(end) == {
            "status", "start", "user_values", "provider_payoffs", "exploitability", "policies",
            "choices",
        }  # fmt: skip
        assert set(end["exploitability"]) == {"lower", "upper"}
        assert all(set(tables) == label for tables in end["policies"].values())
        for choice in end["choices"].values():
            assert set(choice) == {"provider", "actions"}


def test_opposed_users_are_served_only_if_policies_are_personalized():
    file = read_market(MARKETS / "opposed_users.json")
    report = audit_market(file, SETTINGS)
    anonymous, personalized = report["anonymous"], report["personalized"]
    assert list(anonymous["worst"]["user_values"].values()) == pytest.approx([0, 0], abs=1e-9)
    assert list(personalized["worst"]["user_values"].values()) == pytest.approx([1, 1], abs=1e-9)
    assert anonymous["worst_case_loss"]["total"] == pytest.approx(2, abs=1e-7)
    assert personalized["worst_case_loss"]["total"] == pytest.approx(0, abs=1e-7)
    assert anonymous["babbling_is_equilibrium"] is True
    assert list(personalized["babbling_gain"].values()) == pytest.approx([1, 1], abs=1e-7)
