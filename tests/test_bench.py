"""`diffgame bench`: a row whatever a solver does, the journal, profiles."""

import argparse
import dataclasses
import errno
import functools
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from diffgame._terminal import Refused
from diffgame.bench import SUITES, Solver, Suite
from diffgame.bench._profiles import performance_ratios, profile_of
from diffgame.bench._rows import Journal, Row
from diffgame.bench._run import _lane, run_suite
from diffgame.bench._summary import duration, summarise

from .bench_roots import check, draw, make_suite, rows_of, settings_of


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Make the suite of square roots with solvers that go wrong as their names say."""
    return functools.partial(make_suite, tmp_path, monkeypatch)


FAULTS = {
    # name: status and detail of the game where it goes wrong
    "aborts": ("died: signal 6", "a solver may print what it likes"),
    "is killed": ("died: signal 9", "a solver may print what it likes"),
    "exits": ("error", "SystemExit: 3"),
    "raises": ("error", "ValueError: no such luck"),
    "wrong shape": ("unfit answer", "'root' has shape (2,), not (1,)"),
    "not finite": ("not finite", "'root' holds NaN or infinity"),
}


def test_a_fault_is_a_row_and_the_other_games_are_solved(roots, tmp_path):
    found = rows_of(roots(*FAULTS), tmp_path / "journal", settings_of(3))
    for name, expected in FAULTS.items():
        before, wrong, after = found[name]
        assert (wrong.status, wrong.detail) == expected, name
        assert not wrong.certified
        assert [row.status for row in (before, after)] == ["certified"] * 2, name
        assert (before.gap, before.claimed, before.batch) == (0.0, True, 1)
        assert before.seconds is not None
        assert before.seconds > 0


ALWAYS = {
    "fails to start": ("did not start", "OSError: no licence"),
    "dies at the start": ("did not start", "died: exit status 7 starting"),
    "lies": ("no root", ""),
    "text": ("unfit answer", "'root' is of type <U3; only real numbers are an answer"),
    "objects": ("error", "its answer is not plain arrays by name: TypeError"),
    "nothing": ("error", "its answer is not plain arrays by name: AttributeError"),
}


def test_what_always_goes_wrong_is_every_row(roots, tmp_path):
    found = rows_of(roots(*ALWAYS), tmp_path / "journal", settings_of(3))
    for name, (status, detail) in ALWAYS.items():
        # The square root of 0 is what the liar says it is.
        rows = found[name][1:] if name == "lies" else found[name]
        assert {row.status for row in rows} == {status}, name
        assert all(row.detail.startswith(detail) for row in rows), name
        assert not any(row.certified for row in rows)
    assert [row.wrong_claim for row in found["lies"]] == [False, True, True]


def is_running(pid: str) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_hang_is_a_row_and_all_its_processes_are_killed(roots, tmp_path):
    rows = rows_of(roots("hangs"), tmp_path / "journal", settings_of(3, seconds=2.0))["hangs"]
    assert [row.status for row in rows] == ["certified", "timed out", "certified"]
    assert rows[1].detail == "limit 2 s"
    assert rows[1].seconds is None
    assert not is_running((tmp_path / "child").read_text())


def test_a_first_call_has_its_own_limit_and_column(roots, tmp_path):
    suite = roots("first call slow", compiles=True)
    rows = rows_of(suite, tmp_path / "journal", settings_of(2, seconds=1.0))["first call slow"]
    assert [row.status for row in rows] == ["certified"] * 2
    assert rows[0].first_call_seconds is not None
    assert rows[0].first_call_seconds >= 3
    assert rows[1].first_call_seconds is None
    assert [row.steps for row in rows] == [2, 3]


@pytest.mark.campaign
def test_a_first_call_that_hangs_is_not_tried_again_for_that_shape(roots, tmp_path):
    suite = roots("hangs at first", compiles=True)
    settings = settings_of(3, seconds=0.2, first_call=8.0)
    rows = rows_of(suite, tmp_path / "journal", settings)["hangs at first"]
    assert {(row.status, row.detail) for row in rows} == {
        ("timed out", "first call for this shape, limit 8 s; not tried again")
    }
    assert (tmp_path / "calls").read_text().count("hangs at first") == 1


def test_a_batch_is_filled_up_and_judged_game_by_game(roots, tmp_path):
    suite = roots("lies", batch=3)
    rows = rows_of(suite, tmp_path / "journal", settings_of(5))["lies"]
    assert [row.certified for row in rows] == [True, False, False, False, False]
    assert [row.batch for row in rows] == [3, 3, 3, 2, 2]
    assert [row.claimed for row in rows] == [True] * 5
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["lies [0.0, 1.0, 2.0]", "lies [3.0, 4.0, 3.0]"]


def test_a_package_that_is_missing_is_said_in_the_rows(tmp_path, monkeypatch):
    solver = Solver("absent", None, package="no_such_package")
    suite = Suite("roots", "", "", draw, lambda _: {}, check, (solver,))
    monkeypatch.setitem(SUITES, "roots", "bench_roots_of_test")
    rows = rows_of(suite, tmp_path / "journal", settings_of(2))["absent"]
    assert [row.status for row in rows] == ["not installed"] * 2
    assert rows[0].detail.startswith("no_such_package is missing: python -m pip install")


def test_an_interrupted_run_goes_on_and_solves_nothing_twice(roots, tmp_path):
    suite, path = roots("honest", "lies"), tmp_path / "journal"
    seen = []

    def stop_after_three(text):
        seen.append(text)
        if len(seen) == 4:
            raise KeyboardInterrupt

    entries = [(solver, None) for solver in suite.solvers]
    with Journal(path, {"a": 1}) as journal, pytest.raises(KeyboardInterrupt):
        run_suite(suite, entries, settings_of(4), journal, stop_after_three)
    assert len(journal.rows) == 3
    # A crash may cut the last line short.
    with path.open("a") as file:
        file.write('{"suite": "roots", "solv')
    with Journal(path, {"a": 1}) as journal:
        assert len(journal.rows) == 3
        run_suite(suite, entries, settings_of(4), journal, lambda _: None)
    with Journal(path, {"a": 1}) as journal:
        places = [(row.solver, row.game) for row in journal.rows]
    assert sorted(places) == [(name, game) for name in ("honest", "lies") for game in range(4)]
    calls = Counter((tmp_path / "calls").read_text().splitlines())
    assert set(calls.values()) == {1}
    assert len(calls) == 8


def test_who_took_no_part_is_tried_again_on_resume(tmp_path):
    solved = Row("roots", "honest", 0, 0, "certified", certified=True)
    with Journal(tmp_path / "journal", {}) as journal:
        journal.add(Row("roots", "absent", 0, 0, "not installed"))
        journal.add(solved)
    for _ in range(2):
        with Journal(tmp_path / "journal", {}) as journal:
            assert journal.rows == [solved]


def test_a_journal_of_something_else_is_refused(tmp_path):
    path = tmp_path / "journal"
    with Journal(path, {"games": 3}):
        pass
    with pytest.raises(Refused, match="its run had games 3, this one has 4"):
        Journal(path, {"games": 4})
    path.write_text("hello\n")
    with pytest.raises(Refused, match="is not a journal of diffgame bench"):
        Journal(path, {"games": 3})


def test_a_full_disk_refuses_in_one_line_and_keeps_the_rows(tmp_path, monkeypatch):
    path, row = tmp_path / "journal", Row("roots", "honest", 0, 0, "certified", certified=True)

    def fill(text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(path, {}) as journal:
        journal.add(row)
        monkeypatch.setattr(
            journal, "_file", argparse.Namespace(write=fill, close=journal._file.close)
        )
        with pytest.raises(Refused, match=r"cannot be written \(No space left on device.*--resume"):
            journal.add(row)
    with Journal(path, {}) as journal:
        assert journal.rows == [row]


# Profiles: four games, three solvers; worked out by hand.
SECONDS = {
    "fast": [1.0, 2.0, None, None],
    "sure": [4.0, 1.0, 3.0, None],
    "slow": [8.0, None, 3.0, None],
}


def profile_rows() -> list[Row]:
    def row(name, game, t):
        if t is None:
            return Row("s", name, 0, game, "no", seconds=5.0)
        return Row("s", name, 0, game, "certified", certified=True, seconds=t)

    return [row(name, game, t) for name, times in SECONDS.items() for game, t in enumerate(times)]


def test_a_profile_is_the_one_worked_out_by_hand():
    found = profile_of(profile_rows(), list(SECONDS), "seconds", "time")
    # Ratios: fast 1, 2, inf, inf; sure 4, 1, 1, inf; slow 8, inf, 1, inf.
    expected = {
        "fast": ([1, 2], [0.25, 0.5]),
        "sure": ([1, 4], [0.5, 0.75]),
        "slow": ([1, 8], [0.25, 0.5]),
    }
    for name, (taus, shares) in expected.items():
        np.testing.assert_array_equal(found.curves[name][0], taus)
        np.testing.assert_array_equal(found.curves[name][1], shares)
    assert [found.share_at("sure", tau) for tau in (1.0, 3.9, 4.0, 1e3)] == [0.5, 0.5, 0.75, 0.75]


def test_a_profile_never_counts_what_is_not_certified():
    rows = [dataclasses.replace(row, certified=False) for row in profile_rows()]
    found = profile_of(rows, list(SECONDS), "seconds", "time")
    assert all(shares.tolist() == [0.0] for _, shares in found.curves.values())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_profile_rises_to_the_share_solved_and_somebody_is_best(seed: int):
    rng = np.random.default_rng(seed)
    costs = np.where(rng.uniform(size=(50, 4)) < 0.3, np.inf, rng.lognormal(size=(50, 4)))
    ratios = performance_ratios(costs)
    solved = np.isfinite(costs).any(axis=1)
    assert (ratios.min(axis=1)[solved] == 1).all()
    assert np.isinf(ratios[~solved]).all()
    np.testing.assert_array_equal(np.isfinite(ratios), np.isfinite(costs))
    # Another unit of cost changes nothing.
    np.testing.assert_allclose(performance_ratios(1000 * costs), ratios, rtol=1e-12)


def test_a_summary_takes_medians_of_solved_games_only():
    fast, sure, _ = summarise(profile_rows(), list(SECONDS))
    assert (fast.games, fast.certified, fast.seconds, fast.fastest) == (4, 2, 1.5, 0.25)
    assert (sure.certified, sure.seconds, sure.others) == (3, 3.0, {"no": 1})
    assert [duration(t) for t in (None, 2e-6, 0.0314, 12.0)] == ["", "2 us", "31.4 ms", "12 s"]


def test_the_answer_to_one_game_of_a_batch_is_arrays_that_are_there():
    answer = {"first": np.eye(2), "claimed": np.array([True, False]), "steps": np.array([3])}
    second = _lane(answer, 1)
    assert set(second) == {"first", "claimed"}
    for name, values in second.items():
        assert isinstance(values, np.ndarray), name
        np.testing.assert_array_equal(values, answer[name][1])
