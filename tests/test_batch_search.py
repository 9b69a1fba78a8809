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
from diffgame.batch._report_command import (
    add_arguments as add_report_arguments,
    run as run_report,
)
from diffgame.batch._search_axes import GAME_DATA
from diffgame.batch._search_command import add_arguments, run
from diffgame.batch._search_file import read_search
from diffgame.batch._search_results import write_search
from diffgame.batch._search_run import Markets, run_search

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
    assert len({dataclasses.replace(f, groups=(1,), providers=1) for f in families}) == 1


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


def test_a_factory_of_ones_own(write, tmp_path, capsys):
    (tmp_path / "tests_of_search.py").write_text((SEARCHES / "pricing.py").read_text())
    text = FACTORY.replace("[[ladder]]", "arguments = { temperature = 0.5 }\n[[ladder]]")
    found = run_search(read_search(write(text)), tmp_path / "blocks")
    assert found["status"].tolist() == ["certified"] * 12
    assert set(found["rung"]) == {"adaptive extragradient"}
    assert found["profile.offer"].shape == (12, 2)
    results = tmp_path / "own.nc"
    write_search(results, tmp_path / "own.parquet", text, {"certified": 12}, found)
    assert report(results, "--game", "11") == 0
    assert capsys.readouterr().out.endswith("Bitwise as in the results' row.\n")
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
        ("games = 12", "gamez = 12", "games is missing; rename gamez"),
        ("games = 12", "games = 12\ngame = 1", "game is unknown; known: format, games"),
        ("seed = 4", "sede = 4", "sede is unknown; rename it seed"),
        ("providers = 2", "prior = 2.0", "market.providers is missing; state it"),
        ("users = 1", "users = true", "market.users is True"),
        ("users = 1", "users = [1, 1]", "a list of different ones"),
        ("users = 1", 'users = 5\nmode = "anonymous"', "5 users share are exact for up to 4"),
        ("users = 1", 'users = 1\nmode = "some"', "choose from personalized, partial, anonymous"),
        ("users = 1", "users = 1\nmode = []", r"market.mode is \[\]; choose from"),
        ("users = 1", 'users = 1\nmode = ["anonymous", "anonymous"]', "a list of different ones"),
        ("users = 1", "users = 1\nmode = [1]", r"market.mode is \[1\]"),
        ("users = 1", 'users = 3\nmode = "partial"', "market.segments is missing"),
        ("users = 1", "users = 3\nsegments = 2", 'say mode = "partial", or leave segments out'),
        ("users = 1", 'users = 3\nmode = "partial"\nsegments = 4', "3 users make 3 groups at most"),
        ("users = 1", 'users = 9\nmode = "partial"\nsegments = 2', "fewer users or more segments"),
        ("users = 1", 'users = 3\nmode = "partial"\nsegments = 0', "market.segments is 0"),
        ("users = 1", 'users = 3\nmode = "partial"\nsegments = 1.5', "market.segments is 1.5"),
        ("users = 1", "users = 1\ntemperature = -0.1", "market.temperature is -0.1; give a number"),
        ("users = 1", "users = 1\ntemperature = 1e-9", "0, or from 0.001 to 1000"),
        ("users = 1", "users = 1\ntemperature = inf", "market.temperature is inf"),
        ("users = 1", "users = 1\ntemperature = nan", "market.temperature is nan"),
        ("users = 1", 'users = 1\ntemperature = "warm"', "market.temperature is 'warm'"),
        ("users = 1", "users = 1\ntemperature = []", r"market.temperature is \[\]"),
        ("users = 1", "users = 1\ntemperature = [0.1, 0.1]", "a list of different ones"),
        ("users = 1", "users = 1\ntemperature = {least = 0.1}", "greatest = ..."),
        (
            "users = 1",
            "users = 1\ntemperature = {least = 2, greatest = 1}",
            "market.temperature is",
        ),
        ("users = 1", "users = 1\ntemperature = {least = 0, greatest = 1}", "a range holds no 0"),
        (
            "users = 1",
            'users = 2\nmode = "anonymous"\ntemperature = 0.1',
            'market.temperature is 0.1; .* give temperature = 0, or mode = "personalized"',
        ),
        (
            "states = 2",
            "states = 4\ntemperature = [0, 0.1]",
            "market.states is 4; .* give 2 or 3, or temperature = 0",
        ),
        (
            "users = 1\nproviders = 2\nactions = 2",
            'users = 4\nmode = "anonymous"\nproviders = 2\nactions = 5',
            "market.actions is 5; 4 users who share a signal have 625 profiles",
        ),
        ("actions = 2", "actions = 1", "market.actions is 1; give a whole number of at least 2"),
        ("states = 2", "states = 2.0", "market.states is 2.0"),
        ("states = 2", "states = 2\nprior = 0", "market.prior is 0; give a finite number above 0"),
        ("states = 2", "states = 2\nprior = inf", "market.prior is inf"),
        ("states = 2", "states = 2\nweights = [1, 1]", r"market.weights is \[1, 1\]"),
        ("[0.0, 0.3]", "1.5", "market.misalignment is 1.5; give a number or"),
        ("[0.0, 0.3]", "[0.1, 0.2, 0.3]", "market.misalignment is"),
        ("games = 12", "games = true", "games is True"),
        ("games = 12", 'games = "many"', "games is 'many'"),
        ("lanes = 8", "lanes = 0", "lanes is 0"),
        ("chunk = 5", "chunk = -1", "chunk is -1"),
        ("seed = 4", "seed = -1", "seed is -1"),
        (
            "seed = 4",
            "seed = 18446744073709551616",
            "seed is .*; give a whole number of at least 0 and at most 4294967295",
        ),
        (
            "[market]",
            '[results]\nprofiles = "yes"\n[market]',
            "results.profiles is 'yes'; give true",
        ),
        ("[market]", "[results]\nfigures = true\n[market]", "results.figures is unknown"),
        ("[market]", "[stop]\ncertified = 0\n[market]", "stop.certified is 0"),
        ("[market]", "[stop]\nminutes = 3\n[market]", "stop.minutes is unknown"),
        ("[market]", "certificate = 3\n[market]", "certificate is 3; make it a table"),
        ("games = 12", "games = 12\ngames = 13", "is no TOML"),
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
        ('gradient"', 'gradient"\ntolerance = 0', "tolerance is 0; give a finite number above 0"),
        ('gradient"', 'gradient"\nprecision = "half"', "choose from float64, float32"),
        ('gradient"', 'gradient"\nprecision = "float32"', "end with a rung in float64"),
        ('gradient"', 'gradient"\nsteps = 3', r"ladder\[0\].steps is unknown"),
        ("starts = 1", "starts = -1", "certificate.starts is -1"),
        ("[certificate]", "[factory.arguments]\n[factory.other]\n[certificate]", "is unknown"),
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
    assert read_search(path).games >= 50


def test_a_file_that_is_not_there_is_one_clear_line(tmp_path):
    with pytest.raises(Refused, match="cannot be read"):
        command(tmp_path / "none.toml", tmp_path / "out.nc")
    with pytest.raises(Refused, match="the folder does not exist"):
        command(SEARCHES / "markets.toml", tmp_path / "none" / "out.nc")


def test_the_file_says_what_is_drawn(write):
    text = MARKETS.replace("users = 1", 'users = [3, 4]\nmode = ["personalized", "partial"]')
    text = text.replace("[0.5, 2.0]", "1.0\nsegments = [2, 3]")
    families = read_search(write(text)).families
    assert [family.groups for family in families] == [
        (1, 1, 1),
        (1, 1, 1, 1),
        (2, 1),
        (2, 2),
        (2, 1, 1),
    ]
    noisy = MARKETS.replace("users = 1", "users = 1\ntemperature = [0, 0.1]")
    found = read_search(write(noisy))
    assert [family.temperature for family in found.families] == [(0, 0), (0.1, 0.1)]
    assert [family.quantal for family in found.families] == [False, True]
    warm = MARKETS.replace("users = 1", "users = 1\ntemperature = {least = 0.1, greatest = 1}")
    assert read_search(write(warm)).families[0].temperature == (0.1, 1.0)


def report(*arguments: str | Path) -> int:
    parser = argparse.ArgumentParser()
    add_report_arguments(parser)
    return run_report(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture(scope="module")
def written(straight, tmp_path_factory):
    """What the command writes of the same markets."""
    path = tmp_path_factory.mktemp("written") / "out.nc"
    write_search(path, path.with_suffix(".parquet"), MARKETS, {"certified": 12}, straight)
    return path


def test_one_market_is_solved_again_to_the_bit(written, capsys):
    assert report(written, "--game", "7") == 0
    printed = capsys.readouterr().out
    assert "status: certified" in printed
    assert "signal: [[[[" in printed
    assert printed.endswith("Bitwise as in the results' row.\n")


def test_a_changed_row_shows(written, straight, tmp_path, capsys):
    changed = {name: values.copy() for name, values in straight.items()}
    changed["user_values"][7, 0] += 0.25
    changed["status"][7] = "local"
    path = tmp_path / "out.nc"
    write_search(path, path.with_suffix(".parquet"), MARKETS, {"certified": 12}, changed)
    assert report(path, "--game", "7") == 3
    printed = capsys.readouterr().out
    assert "Differs from the results' row: status by inf, user_values by 0.25" in printed


def test_profiles_are_kept_unless_they_are_many(straight, write, tmp_path):
    assert straight["signal"].shape == (12, 2, 1, 2, 2)
    assert straight["objective"].shape == (12, 2, 1, 2, 2)
    text = MARKETS.replace("[market]", "[results]\nprofiles = false\n[market]")
    found = run_search(read_search(write(text)), tmp_path / "blocks")
    dropped = straight.keys() - found.keys()
    assert dropped == set(GAME_DATA)
    assert_same(found, {name: straight[name] for name in found})
    many = MARKETS.replace("games = 12", "games = 10_000_000").replace(
        "chunk = 5", "chunk = 10_000"
    )
    assert not Markets(read_search(write(many))).profiles
