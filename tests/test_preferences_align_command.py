"""The command `diffgame align`: options, output, exit status."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from diffgame._terminal import Refused
from diffgame.preferences import RatingsError, _align
from diffgame.preferences._align_command import add_arguments, run

from .test_preferences_errors import PEOPLE, PROVIDERS, table


def align(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Ratings with a column of groups, and providers for the same items."""
    ratings, utilities = table(1)
    rows = [["id", "country", *ratings.items]]
    for k, (person, values) in enumerate(zip(ratings.people, ratings.values, strict=True)):
        cells = ["" if np.isnan(value) else repr(float(value)) for value in values]
        rows.append([person, "ab"[k % 2], *cells])
    people = tmp_path / "ratings.csv"
    people.write_text("\n".join(map(",".join, rows)) + "\n")
    rows = [["model", *ratings.items]]
    rows += [[f"m{k}", *map(repr, values)] for k, values in enumerate(utilities.tolist())]
    models = tmp_path / "models.csv"
    models.write_text("\n".join(map(",".join, rows)) + "\n")
    return people, models


OPTIONS = ("--scale", "1,5", "--groups", "country", "--folds", 3)


def test_a_file_is_measured_printed_and_written_in_full_precision(
    files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    people, models = files
    out = tmp_path / "align.json"
    status = align(people, "--providers", models, *OPTIONS, "--seed", 2, "--json", out)
    assert status == 0
    printed = capsys.readouterr()
    assert str(people) in printed.out.replace("\n", "")
    assert "hull (weights sum to 1)" in printed.out
    assert "\x1b" not in printed.out
    assert max(map(len, printed.out.splitlines()[1:])) <= 80
    assert "fold 3 of 3" in printed.err
    report = json.loads(out.read_text())
    assert report["format"] == "diffgame.align/1"
    assert report["settings"]["seed"] == 2
    assert report["providers"] == [f"m{k}" for k in range(PROVIDERS)]
    assert list(report["groups"]) == ["a", "b"]
    assert len(report["people"]) == PEOPLE
    # Full precision: the weights give back the error that is reported.
    ratings, utilities = table(1)
    cone = report["people"]["p0"]["cone"]
    rest = np.array(cone["weights"]) @ utilities + cone["offset"] - ratings.values[0]
    assert abs(np.sqrt(np.nanmean(rest**2)) - cone["error"]) <= 1e-12
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_without_providers_personas_are_made_and_said_to_be_modelled(
    files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
):
    assert align(files[0], *OPTIONS, "--personas", PROVIDERS) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"The providers are {PROVIDERS} personas made from the groups' means (modelled)" in (
        printed
    )


def test_without_an_offset_nothing_is_added(files: tuple[Path, Path], tmp_path: Path):
    out = tmp_path / "align.json"
    assert (
        align(files[0], "--providers", files[1], *OPTIONS, "--offset", "none", "--json", out) == 0
    )
    people = json.loads(out.read_text())["people"].values()
    assert {person[method]["offset"] for person in people for method in ("cone", "hull")} == {0.0}


@pytest.mark.parametrize(
    "missing", [{"squared_error": 1}, {"sup_norm": 1}, {"strong_alignment": False}]
)
def test_the_exit_status_tells_whether_everything_is_certified(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, missing
):
    measure = _align.align_ratings

    def less(*arguments):
        report = measure(*arguments)
        report["certified"] |= missing
        return report

    monkeypatch.setattr(_align, "align_ratings", less)
    assert align(files[0], "--providers", files[1], *OPTIONS) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "RATINGS.csv is missing; give either a file or --data NAME"),
        (("{people}", "--data", "wvs"), "RATINGS.csv comes together with --data"),
        (("--data", "netflix"), "--data is 'netflix'; choose from"),
        (("--data", "wvs", "--scale", "1,5"), "--scale does not go with --data wvs"),
        (("{people}",), "--scale is missing; state the ends"),
        (("{people}", "--scale", "1"), "--scale is '1'; give MIN,MAX"),
        (("{people}", "--scale", "5,1"), "the scale is 5 to 1"),
        (("{people}", "--scale", "1,5"), "column 'country' is 'a'; give a number"),
        (("{people}", *OPTIONS, "--seed", -1), "--seed is -1"),
        (("{people}", *OPTIONS, "--minimum", 2), "--minimum is 2; choose at least 3"),
        (("{people}", *OPTIONS, "--minimum", 31), "fewer than the minimum of 31"),
        (("{people}", *OPTIONS, "--personas", 0), "--personas is 0"),
        (
            ("{people}", *OPTIONS, "--personas", 3, "--providers", "{models}"),
            "--personas does not go with --providers",
        ),
        (("{people}", *OPTIONS, "--providers", "none.csv"), "none.csv: no such file"),
        (("{people}", *OPTIONS, "--json", "{folder}"), "is a directory; name a file"),
        (
            ("{people}", *OPTIONS, "--json", "{folder}/no/x.json"),
            "the folder does not exist or is not writable",
        ),
    ],
)
def test_bad_usage_is_refused_in_one_line_and_nothing_is_written(
    files: tuple[Path, Path], arguments, message
):
    people, models = files
    names = {"people": people, "models": models, "folder": people.parent}
    before = sorted(people.parent.iterdir())
    with pytest.raises((RatingsError, Refused)) as caught:
        align(*(str(argument).format(**names) for argument in arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(people.parent.iterdir()) == before
