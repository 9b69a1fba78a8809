"""The audit: its structure, and every reported equilibrium checked again from the files alone."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from diffgame import _command
from diffgame.market import (
    AuditSettings,
    MarketFile,
    _audit,
    audit_market,
    read_market,
    write_market,
)

from . import markets, oracle

MARKETS = Path(__file__).parent.parent / "examples" / "markets"
ALIGNMENT = {
    f"{shape}_{offset}" for shape in ("hull", "cone") for offset in ("none", "constant", "state")
}
TOLERANCE = 1e-6


class Arrays:
    """A market file as arrays, read with nothing of ours."""

    def __init__(self, path):
        file = json.loads(Path(path).read_text(encoding="utf-8"))
        self.users = [user["name"] for user in file["users"]]
        self.providers = [provider["name"] for provider in file["providers"]]
        self.states, self.actions = file["states"], file["actions"]
        self.mu = np.array(file["prior"])
        self.us = np.array([user["utility"] for user in file["users"]])
        self.mass = np.array([user.get("mass", 1.0) for user in file["users"]])
        objectives = [provider["objective"] for provider in file["providers"]]
        self.U = np.array(
            [
                [own[name] if isinstance(own, dict) else own for name in self.users]
                for own in objectives
            ]
        )
        # The range of what all users are worth to each provider.
        self.range = np.ptp(self.U, axis=(2, 3)) @ self.mass


def assert_numbers(named, names):
    assert list(named) == list(names)
    assert all(type(value) is float and np.isfinite(value) for value in named.values())


def assert_structure(report, market, modes=("personalized", "anonymous")):
    facts = {"market", "settings", "users", "strong_alignment"}
    assert set(report) == facts | set(modes)
    assert list(report["users"]) == market.users
    for user in report["users"].values():
        assert set(user) == {"full_information", "uninformed", "alignment"}
        assert_numbers(user["alignment"], user["alignment"])
        assert set(user["alignment"]) == ALIGNMENT
    assert set(report["strong_alignment"]) == {"constant", "state"}
    for found in report["strong_alignment"].values():
        assert set(found) == {"distance", "weights", "scales"}
        assert_numbers(found["weights"], market.providers)
        assert_numbers(found["scales"], market.users)
    for mode in modes:
        assert_mode_structure(report[mode], mode, market)


def assert_mode_structure(found, mode, market):
    keys = {
        "worst_case_loss",
        "babbling_is_equilibrium",
        "babbling_gain",
        "best",
        "worst",
        "certified",
        "searched",
    }
    assert keys | ({"equilibrium_range"} if mode == "personalized" else set()) <= set(found)
    assert set(found["worst_case_loss"]) == {"total", "per_user"}
    assert_numbers(found["worst_case_loss"]["per_user"], market.users)
    assert_numbers(found["babbling_gain"], market.providers)
    assert found["babbling_is_equilibrium"] in (True, False, None)
    assert type(found["certified"]) is int
    assert type(found["searched"]) is int
    if mode == "personalized":
        assert list(found["equilibrium_range"]) == market.users
        for low, high in found["equilibrium_range"].values():
            assert low <= high
    observations = market.users if mode == "personalized" else ["everyone"]
    for end in (found["best"], found["worst"]):
        assert set(end) == {
            "status",
            "start",
            "user_values",
            "provider_payoffs",
            "exploitability",
            "policies",
            "choices",
        }
        assert end["status"] in ("certified", "local", "exploitable")
        assert_numbers(end["user_values"], market.users)
        assert_numbers(end["provider_payoffs"], market.providers)
        assert_numbers(end["exploitability"], ["lower", "upper"])
        assert list(end["policies"]) == market.providers
        for tables in end["policies"].values():
            assert list(tables) == observations
        assert list(end["choices"]) == market.users
        for choice in end["choices"].values():
            assert set(choice) == {"provider", "actions"}


def check_again(market, end, mode):
    """A reported end from the market and the report alone; returns each provider's exact gain."""
    n, k = len(market.users), len(market.providers)
    tables = [
        [
            np.array(end["policies"][i][u if mode == "personalized" else "everyone"])
            for u in market.users
        ]
        for i in market.providers
    ]
    for pi in [pi for own in tables for pi in own]:
        assert pi.shape[0] == len(market.states)
        assert pi.min() >= 0
        np.testing.assert_allclose(pi.sum(axis=1), 1, rtol=0, atol=1e-12)
    values = np.array(
        [
            [oracle.user_value(tables[i][j], market.mu, u) for i in range(k)]
            for j, u in enumerate(market.us)
        ]
    )
    chosen, outcomes = np.zeros(n, int), []
    for j, user in enumerate(market.users):
        choice = end["choices"][user]
        chosen[j] = market.providers.index(choice["provider"])
        actions = [market.actions.index(action) for action in choice["actions"]]
        joint = market.mu[:, None] * tables[chosen[j]][j]
        assert len(actions) == joint.shape[1]
        expected, size = market.us[j] @ joint, np.ptp(market.us[j])
        taken = expected[actions, np.arange(joint.shape[1])]
        assert np.all(taken >= expected.max(axis=0) - 1e-8 * size), user
        assert end["user_values"][user] == pytest.approx(taken.sum(), abs=1e-10 * size)
        assert taken.sum() >= values[j].max() - 1e-8 * size, user
        x = np.zeros_like(market.us[j])
        np.add.at(x, actions, joint.T)
        outcomes.append(x)
    payoffs = np.array(
        [
            sum(market.mass[j] * (outcomes[j] * market.U[i, j]).sum() for j in range(n))
            for i in range(k)
        ]
    )
    reported = [end["provider_payoffs"][name] for name in market.providers]
    assert np.all(np.abs(reported - payoffs) <= 1e-10 * market.range)
    gains = np.array(
        [deviation(market, i, tables, values, chosen, outcomes, mode) for i in range(k)]
    )
    return gains - payoffs


def deviation(market, i, tables, values, chosen, outcomes, mode):
    """The most that provider i gets from another policy, by the oracle's programs."""
    outside, fallback = [], []
    for j, u in enumerate(market.us):
        others = [h for h in range(len(tables)) if h != i]
        if not others:
            outside.append(-np.inf)
            fallback.append(None)
            continue
        best = max(values[j, h] for h in others)
        tied = [h for h in others if values[j, h] >= best - 1e-9]
        h = chosen[j] if chosen[j] in tied else tied[0]
        same = np.array_equal(tables[h][j], tables[chosen[j]][j])
        outside.append(best)
        fallback.append(
            outcomes[j] if same else oracle.outcome(tables[h][j], market.mu, u, tol=1e-9)
        )
    if mode == "anonymous":
        users = list(market.us)
        return oracle.best_response(
            users, list(market.U[i]), market.mu, outside, fallback, market.mass
        )[0]
    return sum(
        oracle.best_response(
            [u], [market.U[i, j]], market.mu, [outside[j]], [fallback[j]], [market.mass[j]]
        )[0]
        for j, u in enumerate(market.us)
    )


def check_report(report, market):
    count = 0
    for mode in {"personalized", "anonymous"} & set(report):
        found = report[mode]
        assert 0 < found["certified"] <= found["searched"]
        for name in ("best", "worst"):
            end, bracket = found[name], found[name]["exploitability"]
            gains = check_again(market, end, mode)
            place = f"{report['market']}, {mode}, {name}: exact gains {gains}"
            assert end["status"] == "certified", place
            assert np.all(gains <= TOLERANCE * market.range), place
            assert bracket["lower"] - 1e-7 * market.range.max() <= max(gains.max(), 0), place
            assert max(gains.max(), 0) <= bracket["upper"] + 1e-7 * market.range.max(), place
            count += 1
        loss = found["worst_case_loss"]
        for j, user in enumerate(market.users):
            full = oracle.full_value(market.mu, market.us[j])
            lowest = full - loss["per_user"][user] - 1e-7
            assert report["users"][user]["full_information"] == pytest.approx(full, abs=1e-12)
            assert found["worst"]["user_values"][user] >= lowest, f"{mode}, {user}"
            if mode == "personalized" and len(market.providers) > 1:
                low, high = found["equilibrium_range"][user]
                assert low - 1e-7 <= found["worst"]["user_values"][user] <= high + 1e-7
                assert high == pytest.approx(full, abs=1e-9)
    return count


def run(path, out, *options):
    with pytest.MonkeyPatch.context() as patch:
        # What the command sets up for a process of its own is kept from the other tests.
        patch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(out.parent / "jax"))
        status = _command.main(["audit", str(path), "--json", str(out), *options])
    return status, json.loads(out.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """E1 through the command: its exit status and the file it wrote."""
    out = tmp_path_factory.mktemp("audit") / "audit.json"
    return run(MARKETS / "opposed_users.json", out)


def test_the_command_writes_the_structure_that_is_promised(audited):
    status, report = audited
    assert status == 0
    market = Arrays(MARKETS / "opposed_users.json")
    assert_structure(report, market)
    settings = report["settings"]
    assert (settings["starts"], settings["seed"], settings["tolerance"]) == (64, 0, 1e-6)
    assert settings["modes"] == ["personalized", "anonymous"]


def test_every_reported_equilibrium_holds_from_the_files_alone(audited):
    _, report = audited
    assert check_report(report, Arrays(MARKETS / "opposed_users.json")) == 4


def test_the_check_from_the_files_finds_what_is_wrong(audited):
    """The check can fail: babbling is no personalized equilibrium of opposed users."""
    market = Arrays(MARKETS / "opposed_users.json")
    end = json.loads(json.dumps(audited[1]["personalized"]["worst"]))
    end["user_values"] = dict.fromkeys(market.users, 0.0)
    end["provider_payoffs"] = dict.fromkeys(market.providers, 0.0)
    end["policies"] = {i: {u: [[1.0], [1.0]] for u in market.users} for i in market.providers}
    for choice in end["choices"].values():
        choice["actions"] = ["safe"]
    np.testing.assert_allclose(check_again(market, end, "personalized"), 1, rtol=0, atol=1e-9)
    np.testing.assert_allclose(
        check_again(
            market,
            end | {"policies": {i: {"everyone": [[1.0], [1.0]]} for i in market.providers}},
            "anonymous",
        ),
        0,
        rtol=0,
        atol=1e-9,
    )


def test_opposed_users_in_numbers(audited):
    """E1: weakly but not strongly aligned; (0, 0) in public at worst, (1, 1) one by one."""
    _, report = audited
    for user in report["users"].values():
        assert (user["full_information"], user["uninformed"]) == (1.0, 0.0)
        assert user["alignment"] == pytest.approx(dict.fromkeys(ALIGNMENT, 0.0), abs=1e-8)
    for found in report["strong_alignment"].values():
        assert found["distance"] > 0.1
    public, single = report["anonymous"], report["personalized"]
    assert public["worst_case_loss"]["total"] == pytest.approx(2, abs=1e-7)
    assert single["worst_case_loss"]["total"] == pytest.approx(0, abs=1e-7)
    assert (public["babbling_is_equilibrium"], single["babbling_is_equilibrium"]) == (True, False)
    assert list(single["babbling_gain"].values()) == pytest.approx([1, 1], abs=1e-7)
    assert list(public["worst"]["user_values"].values()) == pytest.approx([0, 0], abs=1e-7)
    for end in (public["best"], single["worst"], single["best"]):
        assert list(end["user_values"].values()) == pytest.approx([1, 1], abs=1e-7)
    for low, high in single["equilibrium_range"].values():
        assert (low, high) == pytest.approx((1, 1), abs=1e-7)
    assert single["certified"] == single["searched"]
    assert public["certified"] == public["searched"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"starts": -1}, "starts is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is 4294967296"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"tolerance": float("nan")}, "tolerance is nan"),
        ({"tolerance": 1.0}, "tolerance is 1.0"),
        ({"modes": ()}, "modes is empty"),
        ({"modes": ("anonymous", "anonymous")}, "names one twice"),
        ({"modes": ("public",)}, "modes has 'public'; choose from personalized, anonymous"),
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        AuditSettings(**setting)


class _Begun(Exception):
    pass


@pytest.mark.parametrize("is_new", [True, False])
def test_a_first_audit_says_that_it_compiles(is_new, monkeypatch):
    def begin(*_):
        raise _Begun

    monkeypatch.setattr(_audit, "prepare_search", lambda *_: is_new)
    monkeypatch.setattr(_audit, "begin_search", begin)
    said = []
    with pytest.raises(_Begun):
        audit_market(read_market(MARKETS / "opposed_users.json"), progress=said.append)
    assert said[0] == "alignment"
    assert ["compiling" in text for text in said[1:]] == [True] * is_new


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["common_interest", "prosecutor"])
def test_shipped_markets_hold_from_the_files_alone(name, tmp_path):
    path = MARKETS / f"{name}.json"
    status, report = run(path, tmp_path / "audit.json")
    assert status == 0
    market = Arrays(path)
    assert_structure(report, market)
    assert check_report(report, market) == 4
    if name == "prosecutor":
        for mode in ("personalized", "anonymous"):
            payoff = report[mode]["worst"]["provider_payoffs"]["prosecutor"]
            assert payoff == pytest.approx(0.6, abs=1e-7)


def random_file(seed):
    mu, mass, us, U = markets.random_market(seed, 3, 3, 3, 3, aligned=seed % 2 == 0)
    return MarketFile(
        name=f"random market {seed}",
        states=("a", "b", "c"),
        actions=("x", "y", "z"),
        users=("u", "v", "w"),
        providers=("p", "q", "r"),
        segments=(None, None, None),
        prior=mu / mu.sum(),
        utility=us,
        objective=U,
        mass=mass,
    )


@pytest.mark.campaign
@pytest.mark.parametrize("seed", range(3), ids="seed={}".format)
def test_random_markets_hold_from_the_files_alone(seed, tmp_path):
    """Three users, states, actions and providers; public ends need not be certified."""
    path = tmp_path / "market.json"
    write_market(path, random_file(seed))
    report = json.loads(json.dumps(audit_market(read_market(path), AuditSettings(starts=8))))
    market = Arrays(path)
    assert_structure(report, market)
    public = report.pop("anonymous")
    assert check_report(report, market) == 2
    for name in ("best", "worst"):
        gains, end = check_again(market, public[name], "anonymous"), public[name]
        bracket = end["exploitability"]
        assert gains.max() <= bracket["upper"] + 1e-7 * market.range.max(), f"{seed=}, {name}"
        assert gains.max() >= bracket["lower"] - 1e-7 * market.range.max(), f"{seed=}, {name}"
        certified = np.all(gains <= TOLERANCE * market.range)
        assert (end["status"] == "certified") == certified, f"{seed=}, {name}: {gains}"
    print(f"{seed=}: public best {public['best']['status']}, worst {public['worst']['status']}")
