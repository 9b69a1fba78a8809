"""`diffgame search`: the file, exact ends of market families, results, resuming."""

import argparse
import dataclasses
import itertools
import math
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import _highs
from diffgame._terminal import Refused
from diffgame.batch import BatchError
from diffgame.batch._market_family import draw_market
from diffgame.batch._search_command import add_arguments, run
from diffgame.batch._search_file import read_search
from diffgame.batch._search_run import run_search

SEARCHES = Path(__file__).parents[1] / "examples" / "searches"
MARKETS = """
format = "diffgame.search/1"
games = 12
seed = 4
lanes = 8
chunk = 5
[market]
users = 1
providers = 2
actions = 2
states = 2
misalignment = [0.0, 0.3]
mass = [0.5, 2.0]
"""
FACTORY = """
format = "diffgame.search/1"
games = 12
lanes = 8
[factory]
function = "tests_of_search:duopolies"
[[ladder]]
solver = "adaptive extragradient"
[certificate]
starts = 1
steps = 5
"""


@pytest.fixture
def write(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "spec.toml"
        path.write_text(text)
        return path

    return write


def command(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    (folder / "spec.toml").write_text(MARKETS)
    return run_search(read_search(folder / "spec.toml"), folder / "blocks")


def assert_same(left: dict, right: dict) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name], strict=True, err_msg=name)


def test_every_market_is_certified_and_in_order(straight):
    assert straight["status"].tolist() == ["certified"] * 12
    assert np.all(straight["gain"] <= 1e-6)
    values = straight["user_values"][:, 0]
    assert np.all(straight["uninformed"][:, 0] - 1e-9 <= values)
    assert np.all(values <= straight["full_information"][:, 0] + 1e-9)
    assert np.all((straight["mass"] >= 0.5) & (straight["mass"] <= 2))
    assert np.all((straight["misalignment"] >= 0) & (straight["misalignment"] <= 0.3))


def test_ends_are_those_of_the_same_dynamics_with_highs(straight, write):
    family, solver = read_search(write(MARKETS)).families[0], _highs.solver()
    for number in range(12):
        drawn = draw_market(family, jax.random.fold_in(jax.random.key(4), number))
        prior, utility, objective = (np.asarray(part) for part in drawn[:3])
        value, gain = _highs.settle(_highs.User(solver, prior, utility[0], objective[:, 0]))
        assert gain <= 1e-6, number
        assert straight["user_values"][number, 0] == pytest.approx(value, abs=1e-6), number


def test_no_result_depends_on_the_chunk_nor_on_how_many_games(straight, write, tmp_path):
    text = MARKETS.replace("chunk = 5", "chunk = 9").replace("games = 12", "games = 10")
    found = run_search(read_search(write(text)), tmp_path / "blocks")
    assert_same(found, {name: values[:10] for name, values in straight.items()})


def test_a_stopped_search_goes_on_and_ends_the_same(straight, write, tmp_path):
    file = read_search(write(MARKETS))

    def stop(here):
        if here.done == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_search(file, tmp_path / "blocks", stop)
    seen = []
    assert_same(run_search(file, tmp_path / "blocks", seen.append), straight)
    assert [math.isnan(here.rate) for here in seen] == [True, True, False]


def test_sizes_share_the_markets(write):
    text = MARKETS.replace("users = 1", "users = [1, 3]").replace("= 2\nact", "= [2, 3]\nact")
    families = read_search(write(text)).families
    assert [(family.users, family.providers) for family in families] == list(
        itertools.product([1, 3], [2, 3])
    )
    assert len({dataclasses.replace(f, users=1, providers=1) for f in families}) == 1


def test_the_command_writes_both_files(straight, write, tmp_path, capsys):
    import pyarrow.parquet
    import xarray

    spec, results = write(MARKETS + "[stop]\ncertified = 6\n"), tmp_path / "out.nc"
    assert command(spec, results) == 0
    printed = capsys.readouterr().out
    assert "10 games of 12 (stopped early)" in printed
    assert "certified " in printed
    assert "a million take" in printed
    with xarray.open_dataset(results, engine="h5netcdf") as found:
        assert found.attrs["spec"] == spec.read_text()
        assert found.attrs["statuses"] == '{"certified": 10}'
        np.testing.assert_array_equal(found["user_values"], straight["user_values"][:10])
    rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert rows["status"] == ["certified"] * 10
    assert rows["game"] == list(range(10))
    assert rows["payoffs_1"] == straight["payoffs"][:10, 1].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.nc",
        "out.parquet",
        "spec.toml",
    ]


def test_blocks_of_an_earlier_run_are_not_taken_unasked(write, tmp_path):
    (tmp_path / "out.nc.blocks").mkdir()
    with pytest.raises(Refused, match="add --resume or remove it"):
        command(write(MARKETS), tmp_path / "out.nc")


def test_a_factory_of_ones_own(write, tmp_path, monkeypatch):
    (tmp_path / "tests_of_search.py").write_text((SEARCHES / "pricing.py").read_text())
    monkeypatch.syspath_prepend(tmp_path)
    text = FACTORY.replace("[[ladder]]", "arguments = { temperature = 0.5 }\n[[ladder]]")
    found = run_search(read_search(write(text)), tmp_path / "blocks")
    assert found["status"].tolist() == ["certified"] * 12
    assert set(found["rung"]) == {"adaptive extragradient"}
    for wrong, problem in [
        (FACTORY, "missing 1 required positional argument"),
        (FACTORY.replace("duopolies", "nothing"), "has no attribute 'nothing'"),
        (FACTORY.replace("tests_of_search", "no_such_module"), "No module named"),
    ]:
        with pytest.raises(BatchError, match=problem):
            run_search(read_search(write(wrong)), tmp_path / "blocks")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("games = 12", "games = 0", "games is 0; give a whole number of at least 1"),
        ("games = 12", "", "games is missing"),
        ("games = 12", "games = 12\ngame = 1", "game is unknown; known: format, games"),
        ("users = 1", "users = true", "market.users is True"),
        ("users = 1", "users = [1, 1]", "a list of different ones"),
        ("users = 1", 'users = 5\nmode = "anonymous"', "exact for up to 4 users"),
        ("users = 1", 'users = 1\nmode = "some"', "choose from personalized, anonymous"),
        ("users = 1", "users = 1\ncolour = 1", "market.colour is unknown"),
        ("[0.0, 0.3]", "[0.3, 0.0]", r"market.misalignment is \[0.3, 0.0\]"),
        ("[0.0, 0.3]", "[0.0, nan]", "market.misalignment is"),
        ("[0.5, 2.0]", "[0.0, 2.0]", "market.mass is"),
        ("[market]", "[[market]]", "make it a table"),
        ("[market]", "[[ladder]]\n[market]", "ladder is unknown"),
        ("[market]", "[factory]\n[market]", "give either"),
        ("[market]", "[stop]\nseconds = 0\n[market]", "stop.seconds is 0"),
        ("[market]", "[certificate]\ntolerance = nan\n[market]", "certificate.tolerance is nan"),
        ("[market]", "[certificate]\nstarts = 3\n[market]", "certificate.starts is unknown"),
        ("search/1", "search/2", "format is 'diffgame.search/2'"),
        ("games = 12", "games =", "is no TOML"),
        ("users = 1", "users = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]", "one to each"),
    ],
)
def test_a_wrong_file_is_one_clear_line(write, tmp_path, old, new, message):
    assert old in MARKETS
    with pytest.raises(Refused, match=message) as refusal:
        command(write(MARKETS.replace(old, new)), tmp_path / "out.nc")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("adaptive extragradient", "best", r"ladder\[0\].solver is 'best'; choose from"),
        ("adaptive extragradient", "extragradient", r"ladder\[0\].learning_rate is missing"),
        ('gradient"', 'gradient"\nlearning_rate = 1', "adaptive extragradient has none"),
        ('gradient"', 'gradient"\nmax_steps = 0', "max_steps is 0"),
        ("tests_of_search:", "tests_of_search.", 'write "module:function"'),
        ("[[ladder]]", "[ladder]", r"write \[\[ladder\]\]"),
    ],
)
def test_a_wrong_factory_is_one_clear_line(write, tmp_path, old, new, message):
    assert old in FACTORY
    with pytest.raises(Refused, match=message):
        command(write(FACTORY.replace(old, new)), tmp_path / "out.nc")


@pytest.mark.parametrize("path", sorted(SEARCHES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_are_read(path):
    assert read_search(path).games >= 1000


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(Refused, match="cannot be read"):
        command(tmp_path / "none.toml", tmp_path / "out.nc")
    with pytest.raises(Refused, match="the folder does not exist"):
        command(SEARCHES / "markets.toml", tmp_path / "none" / "out.nc")
