"""`diffgame bench`: the command, the page, users' solver files, the suites and their checks."""

import argparse
import functools
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet
import pytest

import diffgame as dg
from diffgame._terminal import Refused
from diffgame.bench import SUITES, Budget, Verdict, load_suite
from diffgame.bench._bench_command import add_arguments, run
from diffgame.bench._judge import judge
from diffgame.bench._market_games import check_market, draw_market
from diffgame.bench._markets_highspy import highspy_best_responses
from diffgame.bench._matrix_games import check_pair, check_zero_sum, draw_zero_sum
from diffgame.bench._rows import Journal
from diffgame.bench._run import run_suite
from diffgame.bench._solver_file import SolverFileError, read_solver
from diffgame.games import Cournot

from .bench_roots import make_suite, settings_of

EXAMPLE = Path(__file__).parents[1] / "examples" / "my_solver.py"


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Make the suite of square roots with solvers that go wrong as their names say."""
    return functools.partial(make_suite, tmp_path, monkeypatch)


class _Tables(HTMLParser):
    """The text of every cell of the summary tables, and what the page would fetch."""

    def __init__(self):
        super().__init__()
        self.cells: list[str] = []
        self.fetched: list[str] = []
        self.divisions: list[str] = []
        self._inside = False

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self._inside = tag == "td"
        if tag == "td":
            self.cells.append("")
        self.fetched += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "div" and "id" in attributes:
            self.divisions.append(attributes["id"])

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        if self._inside:
            self.cells[-1] += data


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_the_command_writes_a_page_and_rows(roots, tmp_path, capsys):
    roots("honest", "lies")
    page = tmp_path / "roots.html"
    arguments = "roots", page, "--games", "3", "--seeds", "0,2", "--gambit", sys.executable
    assert command(*arguments) == 0
    text = page.read_text("utf-8")
    tables = _Tables()
    tables.feed(text)
    assert tables.fetched == []
    assert {"roots-0", "roots-1"} <= set(tables.divisions)
    assert {"6 of 6", "1 of 6", "5 no root"} <= set(tables.cells)
    table = pyarrow.parquet.read_table(tmp_path / "roots.parquet")
    assert table.schema.metadata[b"games"] == b"3 per seed, seeds 0, 2"
    rows = table.to_pylist()
    assert Counter(row["status"] for row in rows) == {"certified": 7, "no root": 5}
    assert {(row["seed"], row["game"]) for row in rows} == {
        (s, g) for s in (0, 2) for g in range(3)
    }
    printed = capsys.readouterr().out
    assert re.search(r"honest +6 of 6", printed)
    assert "lies: 5 no root" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "calls", "roots.html", "roots.parquet", "roots.py",
    ]  # fmt: skip


def test_an_earlier_journal_asks_for_resume(roots, tmp_path):
    roots("honest")
    (tmp_path / "roots.html.journal").write_text(json.dumps({"format": "diffgame.bench/1"}) + "\n")
    with pytest.raises(Refused, match="holds rows of an earlier run; add --resume or remove it"):
        command("roots", tmp_path / "roots.html")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chess",), "SUITES has 'chess'; choose from markets, matrix"),
        (("matrix,matrix",), "names a suite twice"),
        (
            ("matrix", "--solvers", "magic"),
            "--solvers has 'magic', which is in no name of",
        ),
        (("matrix", "no_such_folder/out.html"), "OUT.html no_such_folder/out.html: the folder"),
        (("matrix", "out.parquet"), "is where the rows go"),
        (("matrix", "--games", "0"), "--games 0: must be at least 1"),
        (("matrix", "--steps", "0"), "--steps 0: must be at least 1"),
        (("matrix", "--seconds", "nan"), "--seconds nan: must be a positive number"),
        (("matrix", "--first-call", "-1"), "--first-call -1.0: must be a positive number"),
        (("matrix", "--seeds", "0,x"), "--seeds '0,x': give whole numbers"),
        (("matrix", "--seeds", "1,1"), "--seeds '1,1': give different numbers"),
        (("matrix", "--gambit", "no_such_python"), "--gambit no_such_python: is not a program"),
        (("pricing", "--solver", "none.py"), "--solver none.py: no such file"),
        (("matrix", "--solver", EXAMPLE), "--solver: matrix is not played through diffgame.solve"),
    ],
)
def test_bad_usage_is_refused_in_one_line(arguments, message: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Refused) as caught:
        command(*arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no solver; define `solver`, an AbstractSolver, or the functions"),
        ("def init(problem, parameters): pass", "defines no solver"),
        ("solver = 3", "`solver` is of type int; make it an instance of"),
    ],
)
def test_a_solver_file_without_a_solver_is_refused(text: str, message: str, tmp_path):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(SolverFileError, match=re.escape(message)):
        read_solver(path)


def test_a_solver_file_that_does_not_start_ends_the_run(roots, tmp_path):
    suite = roots("fails to start")
    entry = suite.solvers[0], tmp_path / "mine.py"
    message = r"--solver .*mine.py: OSError: no licence"
    with Journal(tmp_path / "j", {}) as journal, pytest.raises(Refused, match=message):
        run_suite(suite, [entry], settings_of(1), journal, lambda _: None)


def test_the_example_finds_the_cournot_quantities():
    solver = read_solver(EXAMPLE)
    found = dg.solve(
        Cournot(cost=jnp.zeros(2)), dg.Concave(), dg.Constant(jnp.zeros(2)), solver, tolerance=1e-9
    )
    np.testing.assert_allclose(found.profile.offer, 1 / 3, rtol=0, atol=1e-8)


def test_a_users_solver_enters_and_its_exception_is_a_row(tmp_path):
    (tmp_path / "broken.py").write_text(
        "def init(problem, parameters):\n    return None\n\n\n"
        "def step(problem, parameters, field, state):\n"
        "    raise ValueError('no such luck\\nsecond line')\n"
    )
    shutil.copy(EXAMPLE, tmp_path / "my_solver.py")
    arguments = [
        "pricing", tmp_path / "out.html", "--games", "1", "--solvers", "my_solver,broken",
        "--solver", tmp_path / "my_solver.py", "--solver", tmp_path / "broken.py",
    ]  # fmt: skip
    assert command(*arguments) == 0
    mine, broken = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert (mine["solver"], mine["status"], mine["claimed"]) == ("my_solver", "certified", True)
    assert mine["steps"] > 1
    assert mine["first_call_seconds"] > mine["seconds"]
    assert (broken["status"], broken["detail"]) == ("error", "ValueError: no such luck")


def test_matrix_answers_are_judged_by_their_tables():
    pennies = {"payoffs": np.array([[[1.0, -1], [-1, 1]], [[-1, 1], [1, -1]]])}
    half, first, zero = np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.zeros(2)
    assert check_pair(pennies, {"first": half, "second": half}) == Verdict(True, 0.0, "certified")
    wrong = check_pair(pennies, {"first": first, "second": first})
    assert (wrong.certified, wrong.gap, wrong.status) == (False, 1.0, "somebody gains by deviating")
    # No probabilities have no regret, and are no equilibrium.
    assert check_pair(pennies, {"first": zero, "second": zero}).status == "no probabilities"
    negative = np.array([1.5, -0.5])
    assert check_pair(pennies, {"first": half, "second": negative}).status == "no probabilities"
    game = {"payoffs": pennies["payoffs"][0]}
    assert check_zero_sum(game, {"first": half, "second": half}).certified
    assert not check_zero_sum(game, {"first": first, "second": half}).certified


@pytest.mark.parametrize("number", [0, 5])
def test_market_answers_are_judged_by_proofs(number: int):
    game = draw_market(0, number)
    suite = load_suite("markets")
    honest = highspy_best_responses(Budget(None, 10.0))(game)
    verdict, _ = judge(suite, game, honest)
    assert (verdict.certified, verdict.status) == (True, "certified")
    assert 0 <= verdict.gap <= 1e-8
    # Full information withheld by all: somebody gains by telling a user a little.
    silent = np.zeros_like(honest["signal"])
    best = np.argmax(game["utility"] @ game["prior"], axis=1)
    silent[:, np.arange(len(best)), best] = 1
    assert check_market(game, honest | {"signal": silent}).status == "a provider gains by deviating"
    # Recommendations that a user would not follow.
    worst = np.roll(honest["signal"], 1, axis=2)
    assert check_market(game, honest | {"signal": worst}).status == "a user gains by not following"
    half = honest["signal"] / 2
    assert check_market(game, honest | {"signal": half}).status == "no probabilities"
    nobody = np.array([0, 3])
    assert check_market(game, honest | {"chosen": nobody}).status == "no such provider"


@pytest.mark.parametrize("name", SUITES)
def test_suites_are_well_formed(name: str):
    suite = load_suite(name)
    assert suite.name == name
    names = [solver.name for solver in suite.solvers]
    assert len(set(names)) == len(names)
    assert all((s.make is None) != (s.script is None) for s in suite.solvers)
    for game in range(3):
        first, again, other = (suite.draw(seed, game) for seed in (0, 0, 1))
        assert first.keys() == again.keys()
        for key, values in first.items():
            assert isinstance(values, np.ndarray)
            np.testing.assert_array_equal(values, again[key], strict=True)
        assert suite.answer(first).keys()
        assert name == "bilevel" or any((first[key] != other[key]).any() for key in first)


@pytest.mark.parametrize("seed", [0, 1])
def test_zero_sum_games_are_what_the_columns_pay(seed: int):
    payoffs = draw_zero_sum(seed, 2)["payoffs"]
    assert payoffs.shape == (10, 10)
    assert np.abs(payoffs).max() <= 1


@pytest.mark.campaign
@pytest.mark.parametrize("name", ["markets", "matrix", "zero_sum"])
def test_every_answer_of_the_pivoting_solvers_is_certified(name: str, tmp_path):
    assert command(name, tmp_path / "out.html", "--games", "30", "--seconds", "30") == 0
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
    sure = ("diffgame exact", "diffgame lemke", "diffgame zero_sum", "quantecon", "highspy")
    missed = [row for row in rows if row["solver"].startswith(sure) and not row["certified"]]
    assert missed == []
    assert len({row["solver"] for row in rows if row["certified"]}) >= 5


@pytest.mark.browser
def test_a_browser_draws_the_page_without_an_error(roots, tmp_path):
    """Run with `pytest -m browser`; needs chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install chromium"
    roots("honest", "lies")
    page = tmp_path / "roots.html"
    assert command("roots", page, "--games", "3", "--gambit", sys.executable) == 0
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0"]
    shown = subprocess.run(
        [chromium, *flags, "--virtual-time-budget=10000", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert shown.returncode == 0
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert shown.stdout.count('<g class="trace scatter') == 4
