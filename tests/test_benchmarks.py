"""The benchmarks run, and write what they promise; how long they take is nobody's assertion."""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import _harness, _highs, _highs_anonymous, conversation, market, preferences
from diffgame.market import equilibrium_values, persuade

values_of = jax.jit(equilibrium_values)
alone_of = jax.jit(persuade)

ROW = {
    "work": str,
    "n": int,
    "ours_seconds": float,
    "peer": str,
    "peer_seconds": float,
    "ratio": float,
    "ours_certified": float,
    "peer_certified": float,
}


def test_market_benchmark_writes_rows_that_are_certified_on_both_sides(tmp_path, capsys):
    out = tmp_path / "rows.json"
    market.main(["--quick", "--json", str(out)])
    content = json.loads(out.read_text())
    assert set(content) == {"machine", "rows"}
    assert {"processor", "cores", "python", "jax", "highspy"} <= set(content["machine"])
    printed = capsys.readouterr().out
    assert len(content["rows"]) == 3
    for row in content["rows"]:
        assert {name: type(value) for name, value in row.items()} == ROW
        assert row["ours_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["ours_seconds"])
        assert row["ours_certified"] == 1
        assert row["peer_certified"] == 1
        assert row["work"] in printed
    assert list(tmp_path.iterdir()) == [out]


def test_preferences_benchmark_agrees_with_scipy(tmp_path, capsys):
    out = tmp_path / "rows.json"
    preferences.main(["--quick", "--json", str(out)])
    (row,) = json.loads(out.read_text())["rows"]
    assert {name: type(value) for name, value in row.items()} == ROW
    assert (row["ours_certified"], row["peer_certified"]) == (1, 1)
    assert row["work"] in capsys.readouterr().out


def test_conversation_benchmark_writes_rows_of_values_and_gradients_that_agree(tmp_path, capsys):
    out = tmp_path / "rows.json"
    conversation.main(["--quick", "--json", str(out)])
    content = json.loads(out.read_text())
    assert set(content) == {"machine", "rows"}
    assert {"processor", "cores", "python", "jax"} <= set(content["machine"])
    printed = capsys.readouterr().out
    kinds = [row["work"].partition(",")[0] for row in content["rows"]]
    assert kinds == ["value", "gradient", "gradient", "value", "gradient"]
    for row in content["rows"]:
        assert {name: type(value) for name, value in row.items()} == ROW
        assert row["ours_seconds"] > 0
        assert row["ratio"] == pytest.approx(row["peer_seconds"] / row["ours_seconds"])
        assert row["ours_certified"] == 1, row["work"]
        assert row["peer_certified"] == 1, row["work"]
        assert row["work"] in printed
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("part", ["payoffs", "gradient"])
def test_conversations_that_differ_from_numpy_are_not_called_certified(part, monkeypatch):
    right = getattr(conversation, part)

    def wrong(protocol):
        compute = right(protocol)

        def slightly_off(*arrays):
            return jax.tree.map(
                lambda x: x + 1e-4 * jnp.arange(x.size).reshape(x.shape), compute(*arrays)
            )

        return slightly_off

    monkeypatch.setattr(conversation, part, wrong)
    rows = conversation.compare_tree(conversation.Size(conversation.Protocol(1, 1, 2)))
    shares = {row.work.partition(",")[0]: row.ours_certified for row in rows}
    assert shares == {"value": float(part != "payoffs"), "gradient": float(part != "gradient")}


def test_a_missing_peer_is_one_line_and_status_2(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(SystemExit) as stopped:
        market.main(["--quick"])
    assert stopped.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "pip install" in told.err


@pytest.mark.parametrize("option", [["--markets", "2"], ["--batch", "0"]], ids=" ".join)
def test_sizes_that_leave_the_peer_without_work_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        market.main(option)
    assert stopped.value.code == 2
    assert "at least" in capsys.readouterr().err


def test_the_peer_solves_the_prosecutors_problem():
    """Kamenica, Gentzkow (2011): convicts at posterior 1/2, prior of guilt .3, so 60 percent."""
    program = _highs.persuasion_program(
        np.array([0.7, 0.3]), np.eye(2), np.array([[0.0, 0.0], [1.0, 1.0]])
    )
    (optimal, signal, _), *_ = _highs.solve_each([program])
    assert optimal
    assert np.dot(signal[2:], [0.7, 0.3]) == pytest.approx(0.6, abs=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_peer_ends_at_an_equilibrium_value(seed):
    prior, utility, objective = (part[0] for part in market.random_markets(1, 1, seed))
    user = _highs.User(_highs.solver(), prior, utility[0], objective[:, 0])
    value, gain = _highs.settle(user)
    found = values_of(*(jnp.asarray(part) for part in (prior, utility[0], objective[:, 0])))
    inside = found.valid & (found.low - 1e-7 <= value) & (value <= found.high + 1e-7)
    assert jnp.any(inside), f"seed={seed}: {value}"
    assert abs(gain) <= 1e-8


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_that_the_peer_proves_is_its_optimum(seed):
    prior, utility, objective = (part[0] for part in market.random_markets(1, 1, seed))
    user = _highs.User(_highs.solver(), prior, utility[0], objective[:, 0])
    signal = user.maximise(user.objective[0])
    assert signal is not None
    assert user.bound() == pytest.approx(float(user.objective[0] @ signal), abs=1e-9)
    alone = alone_of(*(jnp.asarray(part) for part in (prior, utility, objective[0])), jnp.ones(1))
    assert user.bound() == pytest.approx(float(alone.lower), abs=1e-8)


def test_the_peer_stays_with_babbling_where_users_fear_opposite_mistakes():
    """Each signal that helps one user harms the other: nobody gains by informing anybody."""
    utility = np.array([[[0, 0], [1, -3], [-3, 1]], [[0, 0], [-3, 1], [1, -3]]])
    utility = (utility + 3) / 4
    objective = np.stack([utility[:1].repeat(2, 0), utility[1:].repeat(2, 0)])
    group = _highs_anonymous.Group(_highs.solver(), np.full(2, 0.5), utility, objective)
    gain, values = _highs_anonymous.settle(group)
    assert gain <= 1e-9
    assert values == pytest.approx([0.75, 0.75], abs=1e-12)


def test_the_peer_finds_what_a_provider_gains_by_informing_users_who_agree():
    """Users and both providers want the state named: from babbling to full information."""
    utility = np.eye(2)[None].repeat(2, 0)
    group = _highs_anonymous.Group(
        _highs.solver(), np.full(2, 0.5), utility, utility[None].repeat(2, 0)
    )
    babbling = [group.silent] * 2, np.zeros(2, int)
    assert _highs_anonymous._gain(group, *babbling)[0] == pytest.approx(0.5, abs=1e-9)
    gain, values = _highs_anonymous.settle(group)
    assert gain <= 1e-9
    assert values == pytest.approx([1, 1], abs=1e-9)


def test_sides_are_timed_in_turn_and_answers_kept_in_order():
    calls = []
    _, seconds, answers = _harness.alternate(
        lambda: calls.append("ours"), lambda part: calls.append(part) or part, ["first", "second"]
    )
    assert calls == ["ours", *["ours"] * 3, "first", *["ours"] * 3, "second"]
    assert answers == ["first", "second"]
    assert len(seconds) == 2
