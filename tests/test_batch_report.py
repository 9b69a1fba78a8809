"""`diffgame report`: tables, the page, one game solved again, bad input."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from diffgame._terminal import Refused
from diffgame.batch._report import losses, summarize
from diffgame.batch._report_command import add_arguments, run
from diffgame.batch._search_results import write_search

SPEC = """format = "diffgame.search/1"
games = 5
seed = 4
lanes = 8
[market]
users = 1
providers = 2
actions = 2
states = 2
misalignment = [0.0, 0.3]
mass = [0.5, 2.0]
"""


def columns() -> dict[str, np.ndarray]:
    """Five markets of two sizes, the last one without a result, worked out by hand."""
    nothing = np.nan
    return {
        "status": np.array(["certified", "certified", "local", "certified", "nonfinite"], object),
        "certified": np.array([True, True, False, True, False]),
        "gain": np.array([0.0, 1e-9, 0.02, 1e-8, nothing]),
        "user_values": np.array([[2.0, nothing], [1.0, nothing], [1, 1], [2, 1], [nothing] * 2]),
        "full_information": np.array([[2.0, nothing], [3.0, nothing], [2, 2], [2, 2], [2, 2]]),
        "uninformed": np.array([[1.0, nothing], [0.0, nothing], [1, 1], [1, 0], [1, 1]]),
        "mass": np.array([[1.0, nothing], [2.0, nothing], [1, 1], [1, 3], [1, 1]]),
        "misalignment": np.array([0.0, 0.05, 0.1, 0.9, 1.0]),
        "temperature": np.array([0.0, 0.5, 0.0, 0.0, 0.0]),
        "users": np.array([1, 1, 2, 2, 2]),
        "providers": np.full(5, 2),
        "segments": np.array([1, 1, 1, 1, 1]),
        "payoffs": np.ones((5, 2)),
    }


HEADER = {
    "statuses": json.dumps({"certified": 3, "local": 1, "nonfinite": 1}),
    "spec": SPEC,
    "games_per_second": "12.5",
}


@pytest.fixture
def results(tmp_path) -> Path:
    path = tmp_path / "out.nc"
    counts = json.loads(HEADER["statuses"])
    write_search(path, tmp_path / "out.parquet", SPEC, counts, columns(), 12.5)
    return path


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


def test_losses_are_averages_by_mass():
    loss, room = losses(columns())
    # In the fourth market one user of mass 3 lacks 1, the other nothing.
    np.testing.assert_allclose(loss, [0, 2, 1, 3 / 4, np.nan])
    np.testing.assert_allclose(room, [1, 3, 1, 7 / 4, 1])


def test_tables_count_and_average_certified_games_only():
    report = summarize(HEADER, columns(), games=8)
    assert report.header["games"] == "5 of 8 (stopped early)"
    assert report.header["games per second"] == "12.5"
    assert report.statuses[1] == {"status": "local", "games": 1, "share": 0.2}
    exact, quantal, pair = report.families
    assert (exact["choice"], quantal["choice"]) == ("exact", "quantal")
    assert (exact["games"], quantal["games"], pair["games"]) == (1, 1, 3)
    assert pair["certified"] == pytest.approx(1 / 3)
    assert pair["welfare"] == pytest.approx(4 / 7)
    assert (exact["no loss"], pair["no loss"]) == (1, 0)
    assert [row["games"] for row in report.misalignment] == [2, 1, 2]
    assert report.misalignment[1]["welfare"] is None
    # Two markets together: they lose 2 of 4.
    assert report.misalignment[0]["welfare"] == pytest.approx(1 / 2)
    assert report.misalignment[0]["largest loss"] == 2
    assert [row["temperature"] for row in report.temperatures] == ["0", "0.5"]
    # Worst first: what is not a number is worse than any gain.
    assert [row["game"] for row in report.open] == [4, 2]


def test_games_of_ones_own_are_told_by_rung():
    own = {
        "status": np.array(["certified", "max_steps"], object),
        "certified": np.array([True, False]),
        "gain": np.array([0.0, np.nan]),
        "residual": np.array([1e-9, 0.1]),
        "steps": np.array([7, 50]),
        "rung": np.array(["first", "second"], object),
    }
    report = summarize({"statuses": '{"certified": 1, "max_steps": 1}'}, own, games=2)
    assert [row["ended on"] for row in report.families] == ["first", "second"]
    assert [row["certified"] for row in report.families] == [1, 0]
    assert report.open == [
        {"game": 1, "status": "max_steps", "gain": pytest.approx(np.nan, nan_ok=True)}
        | {"residual": 0.1, "steps": 50}
    ]
    assert report.misalignment == report.temperatures == []


def test_the_page_is_whole_and_needs_no_network(results, tmp_path, capsys):
    page = tmp_path / "out.html"
    assert command(results, "--html", page) == 0
    printed = capsys.readouterr().out
    assert "60.000%" in printed
    assert "diffgame report out.nc --game NUMBER" in printed
    text = page.read_text("utf-8")
    for part in ("statuses", "families", "misalignment", "temperature", "open", "spec"):
        assert f'<section id="{part}">' in text
    for figure in ("statuses-0", "misalignment-0", "misalignment-1", "temperature-0"):
        assert f'id="{figure}"' in text
    assert "providers = 2" in text
    assert "<script src=" not in text
    assert "<link" not in text
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "out.html",
        "out.nc",
        "out.parquet",
    ]


def test_what_is_no_results_file_is_one_clear_line(results, tmp_path):
    import xarray

    whole = results.read_bytes()
    cut, other, text = tmp_path / "cut.nc", tmp_path / "other.nc", tmp_path / "text.nc"
    cut.write_bytes(whole[: len(whole) // 2])
    text.write_text("no results")
    xarray.Dataset({"x": ("y", [1.0])}).to_netcdf(other, engine="h5netcdf")
    for arguments, problem in [
        ([tmp_path / "none.nc"], "there is no such file"),
        ([tmp_path], "there is no such file"),
        ([cut], "cut short"),
        ([text], "cannot be read as results"),
        ([other], "'no format' where 'diffgame.search_results/1' is needed"),
        ([results, "--html", tmp_path / "none" / "x.html"], "the folder does not exist"),
        ([results, "--html", tmp_path], "is a directory"),
        ([results, "--html", results], "is the results file"),
        ([results, "--game", "5"], "the results have games 0 to 4"),
        ([results, "--game", "-1"], "--game -1: the results have games 0 to 4"),
        ([results, "--game", "1", "--html", tmp_path / "x.html"], "give one of the two"),
    ]:
        with pytest.raises(Refused, match=problem) as refusal:
            command(*arguments)
        assert "\n" not in str(refusal.value)
