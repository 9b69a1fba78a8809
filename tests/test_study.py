"""The study: rows are kept whole, runs go on where they stopped, the page draws what was found."""

import json
import re
import shutil
import subprocess

import pytest

from diffgame import _command
from diffgame.study import (
    SECTIONS,
    Claim,
    Section,
    StudyFileError,
    StudySettings,
    read_results,
    run_study,
)
from diffgame.study._draw import figure, line, scatter
from diffgame.study._results import write_results

ROWS = [
    {"name": "a <b>", "size": 1, "value": 0.1 + 0.2, "status": "certified"},
    {"name": "c", "size": 2, "value": -1e-300, "status": "local"},
]


def made_up(name="first", rows=ROWS, calls=None):
    def compute(settings, progress):
        progress("computing")
        if calls is not None:
            calls.append((name, settings.seed))
        return rows

    def figures(rows):
        return [
            figure([scatter(rows, "size", "value", "x"), line(rows, "size", "value", "y")], "", "")
        ]

    def claims(rows):
        return [
            Claim("values are small", name, f"{len(rows)} rows", all(r["value"] < 1 for r in rows))
        ]

    return Section(name, f"Title of {name}", "What <is> shown.", compute, figures, claims)


def test_rows_come_back_as_they_were(tmp_path):
    path = tmp_path / "study.nc"
    write_results(path, StudySettings(seed=3), {"first": ROWS, "second": ROWS[:1]})
    header, sections = read_results(path)
    assert sections == {"first": ROWS, "second": ROWS[:1]}
    assert (header["seed"], header["scale"]) == (3, 1.0)
    assert {"diffgame", "jax", "format"} <= set(header)
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.nc"]


def test_a_stopped_study_goes_on_where_it_was(tmp_path):
    calls = []
    first, second = made_up("first", calls=calls), made_up("second", calls=calls)

    def stop(settings, progress):
        raise KeyboardInterrupt

    broken = Section("second", "", "", stop, second.figures, second.claims)
    paths = tmp_path / "study.nc", tmp_path / "study.html"
    with pytest.raises(KeyboardInterrupt):
        run_study(*paths, sections=[first, broken])
    assert calls == [("first", 0)]
    claims = run_study(*paths, sections=[first, second])
    assert calls == [("first", 0), ("second", 0)]
    assert [claim.setting for claim in claims] == ["first", "second"]
    straight = tmp_path / "straight.nc", tmp_path / "straight.html"
    run_study(*straight, sections=[made_up("first"), made_up("second")])
    assert read_results(paths[0]) == read_results(straight[0])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [
        "straight.html",
        "straight.nc",
        "study.html",
        "study.nc",
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as results, it may be cut short"),
        (b"hello", "cannot be read as results, it may be cut short"),
        ("cut", "cannot be read as results, it may be cut short"),
        ("seed", "was made with seed 3, not 0; name another output or remove it"),
        ("version", "was made with diffgame 0.0.0, not"),
        ("other", "is no results file of a study"),
    ],
)
def test_files_that_cannot_be_continued_are_refused_and_kept(tmp_path, content, message):
    import xarray

    path = tmp_path / "study.nc"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other":
        xarray.Dataset(attrs={"format": "else"}).to_netcdf(path, engine="h5netcdf")
    else:
        write_results(path, StudySettings(seed=3 if content == "seed" else 0), {"first": ROWS})
        if content == "cut":
            path.write_bytes(path.read_bytes()[:-2000])
        if content == "version":
            header = dict(read_results(path)[0])
            header["diffgame"] = "0.0.0"
            header["sections"] = "[]"
            xarray.Dataset(attrs=header).to_netcdf(path, engine="h5netcdf")
    before = path.read_bytes()
    with pytest.raises(StudyFileError, match=re.escape(message)):
        run_study(path, tmp_path / "study.html", sections=[made_up()])
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.nc"]


def test_the_page_needs_no_network_and_hides_no_status(tmp_path):
    page = tmp_path / "study.html"
    run_study(tmp_path / "study.nc", page, sections=[made_up(), made_up("second")])
    text = page.read_text(encoding="utf-8")
    assert "What &lt;is&gt; shown." in text
    assert "a &lt;b&gt;" in text
    assert text.count("Points: 1 certified, 1 local.") == 2
    assert "2 certified, 2 local" in text
    assert text.count('class="plotly-graph-div"') == 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]+"', text.split("</script>", 1)[1])
    drawn = json.loads(
        re.search(r'Plotly\.newPlot\(\s*"first-0",\s*(\[.*?\]),\s*\{', text, re.S)[1]
    )
    assert [trace["marker"]["symbol"] for trace in drawn] == [["circle", "circle-open"]] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seed", "-1"], "--seed is -1"),
        (["--scale", "nan"], "--scale is nan"),
        (["--scale", "1e9"], "--scale is 1000000000.0"),
        (["--sections", "gap,nothing"], "--sections has 'nothing'; choose from gap"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tmp_path, capsys, arguments, message):
    assert _command.main(["study", str(tmp_path / "study.nc"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_results_never_share_their_file_with_the_page(tmp_path, capsys):
    path = tmp_path / "study.html"
    assert _command.main(["study", str(path)]) == 2
    assert "is where the page goes; name the results .nc" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_names_of_sections_are_unique_and_all_have_texts():
    names = [section.name for section in SECTIONS]
    assert len(set(names)) == len(names) == 8
    assert all(section.title and section.text for section in SECTIONS)


def test_a_small_study_from_the_command(tmp_path, capsys):
    target = tmp_path / "study.nc"
    sections = ["--sections", "simplex", "--scale", "0.15"]
    assert _command.main(["study", str(target), *sections]) == 0
    assert "Claims" in capsys.readouterr().out
    _, rows = read_results(target)
    assert {row["status"] for row in rows["simplex"]} == {"certified"}
    assert (tmp_path / "study.html").exists()


@pytest.mark.browser
def test_a_browser_draws_every_figure_without_an_error(tmp_path):
    """Run with `pytest -m browser`; needs chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    assert chromium, "install chromium"
    page = tmp_path / "study.html"
    run_study(tmp_path / "study.nc", page, sections=[made_up(), made_up("second")])
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
