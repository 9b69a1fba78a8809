"""Audits of markets with conversation or private information, checked again from the files."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from diffgame.market import (
    AuditSettings,
    MarketFile,
    Protocol,
    audit_market,
    print_report,
    read_market,
)
from diffgame.market._menu_search import find_menu_equilibria
from diffgame.market._menu_starts import distinct_branches, protocol_fits
from diffgame.market._menu_worst_case import menu_worst_case
from diffgame.market._private import PrivateInformation
from diffgame.market._typed_tables import best_values, typed_tables

MARKETS = Path(__file__).parents[1] / "examples" / "markets"
QUICK = AuditSettings(starts=8)


def audited(name, settings=QUICK):
    file = read_market(MARKETS / f"{name}.json")
    report = audit_market(file, settings)
    return file, json.loads(json.dumps(report, allow_nan=False))


def check_again(path, found):
    """A reported profile, from the file and the report alone, with nothing of ours."""
    market = json.loads(path.read_text(encoding="utf-8"))
    mu, actions = np.array(market["prior"]), market["actions"]
    payoffs = dict.fromkeys((i["name"] for i in market["providers"]), 0.0)
    for user in market["users"]:
        known = user.get("private", {"values": [""], "likelihood": [[1.0] * len(mu)]})
        tables = np.array(user["utility"]).reshape(len(known["values"]), len(actions), len(mu))
        choice = found["choices"][user["name"]]
        (menu,) = {json.dumps(own) for own in found["policies"][choice["provider"]].values()}
        menu = np.array(json.loads(menu))
        np.testing.assert_allclose(menu.sum(axis=2), 1, rtol=0, atol=1e-12)
        assert menu.min() >= 0
        value = 0.0
        for x, likelihood in enumerate(np.array(known["likelihood"])):
            joint = mu * likelihood
            worth = [(tables[x] @ (joint[:, None] * b)).max(axis=0).sum() for b in menu]
            taken = joint[:, None] * menu[choice["branches"][x]]
            as_told = sum(
                tables[x][actions.index(a)] @ taken[:, m] for m, a in enumerate(choice["actions"])
            )
            # She follows, and no branch or action is better.
            assert as_told >= max(worth) - 1e-9
            value += as_told
            for provider in market["providers"]:
                own = provider["objective"]
                own = own[user["name"]] if isinstance(own, dict) else own
                paid = np.array(own).reshape(tables.shape)[x]
                payoffs[provider["name"]] += user["mass"] * np.sum(paid * taken.T)
        assert found["user_values"][user["name"]] == pytest.approx(value, abs=1e-9)
    assert found["provider_payoffs"] == pytest.approx(payoffs, abs=1e-9)


# The markets that are shipped


def test_three_states_and_two_messages_are_worth_two_thirds():
    """Full information is 1; the two words can name the best one or two of three states."""
    file, report = audited("three_states", AuditSettings(starts=8, modes=("personalized",)))
    walker = report["users"]["walker"]
    assert walker["full_information"] == pytest.approx(1, abs=1e-15)
    assert walker["best_conversation"] == pytest.approx(2 / 3, abs=1e-15)
    mode = report["personalized"]
    assert mode["full_revelation"] is None
    assert mode["babbling_is_equilibrium"] is False
    assert mode["babbling_gain"]["forecaster"] == pytest.approx(1 / 3, abs=1e-9)
    for end in (mode["best"], mode["worst"]):
        assert end["status"] == "certified"
        assert end["user_values"]["walker"] == pytest.approx(2 / 3, abs=1e-9)
        check_again(MARKETS / "three_states.json", end)
    check_again(MARKETS / "three_states.json", mode["babbling"])
    # Both theorems need more words than the protocol has.
    assert mode["worst_case_loss"] is None
    assert mode["equilibrium_range"] == mode["equilibrium_range_certified"] == {"walker": None}
    assert mode["not_computed"].keys() == {"worst_case_loss", "equilibrium_range"}
    screen = io.StringIO()
    print_report(file, report, Console(file=screen, width=100))
    text = screen.getvalue()
    assert "best conversation" in text
    assert "telling everything: the protocol is too small to name the state" in text
    assert "no theorem promises users anything" in text
    assert "no exact range for walker: the protocol is too small" in text
    assert "no bound on losses: the protocol is too small" in text


def test_a_private_bit_is_worth_one_half_alone_and_one_with_the_other():
    file, report = audited("xor")
    holder = report["users"]["holder"]
    facts = [holder[key] for key in ("uninformed", "full_information", "best_conversation")]
    assert facts == pytest.approx([0.5, 1, 1], abs=1e-15)
    assert holder["alignment"]["hull_none"] == pytest.approx(0, abs=1e-8)
    for name in ("personalized", "anonymous"):
        mode = report[name]
        assert (mode["timing"], mode["babbling_is_equilibrium"]) == ("before", False)
        assert mode["babbling_gain"] == pytest.approx({"ally": 0.5, "skeptic": 0}, abs=1e-7)
        assert mode["full_revelation"]["status"] == "certified"
        assert mode["worst"]["user_values"]["holder"] == pytest.approx(1, abs=1e-9)
        assert mode["worst"]["choices"]["holder"]["branches"] == [0, 1]
        for end in ("best", "worst", "babbling", "full_revelation"):
            check_again(MARKETS / "xor.json", mode[end])
        assert mode["worst_case_loss"]["total"] == pytest.approx(0, abs=1e-7)
        assert mode["not_computed"] == {}
    assert report["personalized"]["equilibrium_range"]["holder"] == pytest.approx([1, 1], abs=1e-7)
    assert report["personalized"]["equilibrium_range_certified"] == {"holder": True}
    screen = io.StringIO()
    print_report(file, report, Console(file=screen, width=100))
    assert "telling everything: certified; deviating gains under 1e-9" in screen.getvalue()
    assert "no anonymous equilibrium loses users over 0.0000 in total" in screen.getvalue()


def test_types_that_pick_their_providers_apart_have_no_exact_range():
    """They are like users who cannot be told apart; the bound on losses holds all the same."""
    file, report = audited("xor", AuditSettings(starts=8, timing="after", modes=("personalized",)))
    mode = report["personalized"]
    assert (mode["timing"], mode["babbling_is_equilibrium"]) == ("after", False)
    assert mode["babbling_gain"] == pytest.approx({"ally": 0.5, "skeptic": 0}, abs=1e-7)
    assert mode["worst_case_loss"]["total"] == pytest.approx(0, abs=1e-7)
    assert mode["equilibrium_range"] == {"holder": None}
    assert mode["not_computed"]["equilibrium_range"].keys() == {"holder"}
    for end in ("best", "worst"):
        assert mode[end]["status"] == "certified"
        assert mode[end]["user_values"]["holder"] == pytest.approx(1, abs=1e-9)
        check_again(MARKETS / "xor.json", mode[end])
    screen = io.StringIO()
    print_report(file, report, Console(file=screen, width=200))
    assert "users pick a provider after they learn their private value" in screen.getvalue()


def test_an_unknown_timing_is_refused():
    with pytest.raises(ValueError, match=r"timing is 'never'; choose from before, after\."):
        AuditSettings(timing="never")


# Known games


def contents(utility, objective, prior, mass=None, private=None, protocol=None):
    """A market file from arrays; names are numbers."""
    users = len(utility)
    actions, states = np.shape(utility[0])[-2:]

    def names(kind, count):
        return [f"{kind} {n}" for n in range(count)]

    return MarketFile(
        name="test",
        states=names("state", states),
        actions=names("action", actions),
        users=names("user", users),
        providers=names("provider", len(objective)),
        segments=[None] * users,
        prior=prior,
        utility=utility,
        objective=objective,
        mass=np.ones(users) if mass is None else mass,
        private=private,
        conversation=protocol,
    )


def opposed_users():
    """E1, with enough messages for any menu."""
    first = [[0, 0], [1, -3], [-3, 1]]
    second = [[0, 0], [-3, 1], [1, -3]]
    both = [[first, first], [second, second]]
    return contents([first, second], both, [0.5, 0.5], protocol=Protocol(2, 2, 3))


@pytest.mark.campaign
def test_opposed_users_who_talk_may_still_be_told_nothing():
    """E1 in public: no menu breaks babbling, and the certificate is attained."""
    file = opposed_users()
    tables = typed_tables(file)
    found = find_menu_equilibria(tables, file.conversation, personalized=False, starts=2)
    assert found.babbling.status == "certified"
    assert found.worst().start == "babbling"
    np.testing.assert_allclose(found.worst().user_values, 0, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.best().user_values, 1, rtol=0, atol=1e-9)
    bound = menu_worst_case(tables, personalized=False, timing="before")
    assert bound.total == pytest.approx(2, abs=1e-7)


@pytest.mark.campaign
def test_audits_descend_to_the_worst_public_menu():
    """E1 in public, from the file to the report; the descent ends count among those tried."""
    report = audit_market(opposed_users(), AuditSettings(starts=2, modes=("anonymous",)))
    mode = report["anonymous"]
    assert mode["babbling_is_equilibrium"] is True
    assert mode["worst"]["start"] == "babbling"
    assert list(mode["worst"]["user_values"].values()) == pytest.approx([0, 0], abs=1e-9)
    assert list(mode["best"]["user_values"].values()) == pytest.approx([1, 1], abs=1e-7)
    assert mode["best"]["status"] == mode["worst"]["status"] == "certified"
    # Babbling, full revelation, two monopolies, two random menus, descent and ascent.
    assert mode["searched"] == 8
    assert mode["worst_case_loss"]["total"] == pytest.approx(2, abs=1e-7)
    assert "equilibrium_range" not in mode
    for user in report["users"].values():
        assert user["best_conversation"] == 1.0


@pytest.mark.campaign
def test_opposed_users_who_are_told_apart_learn_everything():
    """E1 in private: any provider breaks babbling, and every equilibrium is full information."""
    report = audit_market(opposed_users(), AuditSettings(starts=8, modes=("personalized",)))
    mode = report["personalized"]
    assert mode["babbling_is_equilibrium"] is False
    assert list(mode["babbling_gain"].values()) == pytest.approx([1, 1], abs=1e-7)
    assert mode["worst_case_loss"]["total"] == pytest.approx(0, abs=1e-7)
    for user, ends in mode["equilibrium_range"].items():
        assert ends == pytest.approx([1, 1], abs=1e-7)
        assert mode["equilibrium_range_certified"][user]
    for end in (mode["worst"], mode["best"]):
        assert end["status"] == "certified"
        assert list(end["user_values"].values()) == pytest.approx([1, 1], abs=1e-7)


@pytest.mark.campaign
def test_a_monopolist_of_two_judges_gets_more_if_it_tells_them_apart():
    """T2 with menus: .8 in public, 1 in private."""
    judges = [np.eye(2), [[1, 0], [0, 1 / 3]]]
    convict = [[0, 0], [1, 1]]
    file = contents(judges, [[convict, convict]], [0.7, 0.3], protocol=Protocol(1, 2, 2))
    report = audit_market(file, AuditSettings(starts=0))
    for mode, payoff in (("anonymous", 0.8), ("personalized", 1.0)):
        for end in ("best", "worst"):
            assert report[mode][end]["status"] == "certified"
            assert report[mode][end]["start"] == "monopoly of provider 1"
            paid = report[mode][end]["provider_payoffs"]["provider 0"]
            assert paid == pytest.approx(payoff, abs=1e-6)


def test_private_information_without_a_conversation_has_no_best_conversation():
    file = read_market(MARKETS / "xor.json")
    fields = vars(file) | {"conversation": None}
    report = audit_market(MarketFile(**fields), AuditSettings(starts=0, modes=("anonymous",)))
    assert "best_conversation" not in report["users"]["holder"]
    assert report["anonymous"]["full_revelation"]["status"] == "certified"


@pytest.mark.campaign
def test_five_users_together_are_bracketed_by_telling_them_apart():
    """Full revelation is certified all the same; babbling is broken by a menu that was tried."""
    same = np.eye(2)
    tables = typed_tables(contents([same] * 5, [[same] * 5] * 2, [0.5, 0.5]))
    found = find_menu_equilibria(tables, None, personalized=False, starts=0)
    assert found.full_revelation.status == "certified"
    assert found.babbling.status == "exploitable"
    np.testing.assert_allclose(found.babbling.lower, 2.5, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.babbling.upper, 2.5, rtol=0, atol=1e-6)


def test_states_too_many_to_partition_leave_the_best_conversation_open():
    states = 16
    file = contents(
        [np.eye(2, states)], [[np.eye(2, states)]], np.full(states, 1 / states),
        protocol=Protocol(1, 1, 2),
    )  # fmt: skip
    assert best_values(typed_tables(file), file.conversation) == [None]
    longer = MarketFile(**vars(file) | {"conversation": Protocol(4, 1, 2)})
    assert best_values(typed_tables(longer), longer.conversation) == [2 / states]


# Which menus a protocol allows


@pytest.mark.parametrize(
    ("protocol", "branches", "messages", "allowed"),
    [
        (None, 9, 9, True),
        (Protocol(1, 1, 2), 1, 2, True),
        (Protocol(1, 1, 2), 1, 3, False),
        (Protocol(1, 1, 2), 2, 2, False),
        (Protocol(2, 1, 2), 1, 4, True),
        (Protocol(2, 1, 2), 2, 1, False),
        (Protocol(2, 2, 2), 2, 4, True),
        (Protocol(2, 2, 2), 4, 2, True),
        (Protocol(2, 2, 2), 4, 4, False),
        (Protocol(3, 2, 1), 8, 1, True),
    ],
    ids=str,
)
def test_a_menu_fits_a_protocol_that_can_spell_its_branches_and_messages(
    protocol, branches, messages, allowed
):
    assert protocol_fits(protocol, branches, messages) is allowed


def test_equal_branches_are_one():
    one, two = np.eye(2), np.array([[1.0, 1.0], [0.0, 0.0]])
    branches, place = distinct_branches(np.stack([two, one, two]))
    np.testing.assert_array_equal(branches, [two, one])
    assert place.tolist() == [0, 1, 0]


@pytest.mark.campaign
def test_each_user_may_have_her_own_worst_menu():
    """A user whose providers both want her to be told nothing, one whose allies tell her all."""
    # Nobody wants the third action.
    same, against = ([*table, [-1, -1]] for table in ([[1, 0], [0, 1]], [[0, 1], [1, 0]]))
    utility, objective = [same, same], [[same, against]] * 2
    tables = typed_tables(contents(utility, objective, [0.5, 0.5]))
    found = find_menu_equilibria(tables, None, personalized=True, starts=8)
    worst, best = found.worst(), found.best()
    assert "each user's worst" in [end.start for end in found.equilibria]
    assert (worst.status, best.status) == ("certified", "certified")
    np.testing.assert_allclose(worst.user_values, [1, 0.5], rtol=0, atol=1e-9)
    np.testing.assert_allclose(best.user_values, [1, 1], rtol=0, atol=1e-9)


def test_what_a_user_knows_counts_in_her_alignment():
    """Providers who mean well only where she holds zero are far from her."""
    same, other = np.eye(2), 1 - np.eye(2)
    known = [PrivateInformation(("zero", "one"), np.full((2, 2), 0.5))]
    file = contents([[same, other]], [[[same, same]]] * 2, [0.5, 0.5], private=known)
    report = audit_market(file, AuditSettings(starts=0, modes=("personalized",)))
    alignment = report["users"]["user 0"]["alignment"]
    # Pairs of value and state are the columns: in half of them the sign is wrong.
    assert alignment["hull_none"] == pytest.approx(1, abs=1e-8)
    assert alignment["cone_state"] == pytest.approx(0.5, abs=1e-8)
