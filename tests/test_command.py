"""The command line: exit statuses, one-line refusals, and output that fits a terminal or a pipe."""

import errno
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import diffgame.market
from diffgame import _command
from diffgame.market import print_report, read_market

from .reports import made_up_report

MARKET = Path(__file__).parent.parent / "examples" / "markets" / "opposed_users.json"
ESCAPE = "\x1b"


@pytest.fixture(autouse=True)
def compiler(monkeypatch, tmp_path_factory):
    """The command sets up the compiler for a process of its own: keep that from the tests."""
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "jax"))


@pytest.fixture
def audits(monkeypatch):
    """Replace the audit itself, minutes of work, by a made-up report; holds what was asked."""
    asked = []

    def answer(status="certified"):
        def audit(file, settings, progress):
            asked.append(settings)
            progress("alignment")
            return made_up_report(file, status, settings.modes)

        monkeypatch.setattr(diffgame.market, "audit_market", audit)
        return asked

    return answer


@pytest.mark.parametrize(
    ("status", "expected"), [("certified", 0), ("local", 3), ("exploitable", 3)]
)
def test_the_exit_status_says_whether_everything_is_certified(status, expected, audits, capsys):
    audits(status)
    assert _command.main(["audit", str(MARKET)]) == expected
    shown = capsys.readouterr()
    assert status in shown.out
    assert "diffgame: alignment" in shown.err
    assert "diffgame: alignment" not in shown.out


def test_one_uncertified_equilibrium_of_one_mode_is_enough_for_status_3(monkeypatch, capsys):
    def audit(file, settings, progress):
        report = made_up_report(file)
        report["anonymous"]["best"]["status"] = "local"
        return report

    monkeypatch.setattr(diffgame.market, "audit_market", audit)
    assert _command.main(["audit", str(MARKET)]) == 3
    assert "best found: local" in capsys.readouterr().out


def test_options_reach_the_audit(audits, tmp_path, capsys):
    asked, out = audits(), tmp_path / "audit.json"
    options = ["--starts", "3", "--seed", "7", "--modes", "anonymous", "--tolerance", "1e-7"]
    assert _command.main(["audit", str(MARKET), "--json", str(out), *options]) == 0
    (settings,) = asked
    assert (settings.starts, settings.seed, settings.tolerance) == (3, 7, 1e-7)
    assert tuple(settings.modes) == ("anonymous",)
    written = json.loads(out.read_text(encoding="utf-8"))
    assert "personalized" not in written
    assert written["anonymous"]["best"]["user_values"]["follower"] == -123.456789
    assert os.listdir(tmp_path) == ["audit.json"]
    assert "Personalized policies" not in capsys.readouterr().out


def changed(**fields):
    return json.loads(MARKET.read_text(encoding="utf-8")) | fields


BAD_FILES = {
    "missing": (None, "missing.json"),
    "broken": ('{"format": ', "JSON"),
    "empty": ("", "JSON"),
    "unknown field": (json.dumps(changed(colour="red")), "colour"),
    "wrong format": (json.dumps(changed(format="diffgame.market/9")), "format"),
    "prior": (json.dumps(changed(prior=[0.5, 0.6])), "prior"),
    "not finite": (MARKET.read_text(encoding="utf-8").replace("1.0", "NaN", 1), "nan"),
}


def assert_refused(arguments, words, capsys):
    assert _command.main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("diffgame: ")
    assert shown.err.count("\n") == 1, shown.err
    assert shown.err.endswith("\n")
    for word in words:
        assert word in shown.err, shown.err


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_market_is_refused_in_one_line(case, audits, tmp_path, capsys):
    asked = audits()
    text, word = BAD_FILES[case]
    path = tmp_path / "missing.json"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    assert_refused(["audit", str(path), "--json", str(tmp_path / "out")], [str(path), word], capsys)
    assert asked == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--starts", "-1"], "--starts is -1"),
        (["--seed", "-1"], "--seed is -1"),
        (["--tolerance", "-1"], "--tolerance is -1"),
        (["--tolerance", "nan"], "--tolerance is nan"),
        (["--tolerance", "1"], "--tolerance is 1.0"),
        (["--modes", "public"], "--modes has 'public'"),
        (["--modes", ""], "--modes"),
        (["--modes", "anonymous,anonymous"], "--modes"),
        (["--modes", "anonymous,"], "--modes"),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(options, word, audits, capsys):
    asked = audits()
    assert_refused(["audit", str(MARKET), *options], [word], capsys)
    assert asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["audit"],
        ["play", "x"],
        ["audit", str(MARKET), "--starts", "many"],
        ["audit", str(MARKET), "--tolerance", "small"],
        ["audit", str(MARKET), "--color"],
        ["audit", str(MARKET), str(MARKET)],
    ],
    ids=str,
)
def test_wrong_usage_ends_with_status_2_and_the_usage(arguments, audits, capsys):
    asked = audits()
    with pytest.raises(SystemExit) as ended:
        _command.main(arguments)
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith("usage: diffgame")
    assert "Traceback" not in shown
    assert asked == []


def test_an_impossible_json_target_is_refused_before_any_work(audits, tmp_path, capsys):
    asked = audits()
    (tmp_path / "file").write_text("kept", encoding="utf-8")
    for target, word in (
        (tmp_path, "directory"),
        (tmp_path / "absent" / "audit.json", "folder"),
        (tmp_path / "file" / "audit.json", "folder"),
    ):
        assert_refused(["audit", str(MARKET), "--json", str(target)], ["--json", word], capsys)
    assert asked == []
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "kept"


@pytest.mark.parametrize("fails", ["write", "replace"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    fails, audits, tmp_path, capsys, monkeypatch
):
    audits()
    out = tmp_path / "audit.json"
    out.write_text("old", encoding="utf-8")

    def full(*args, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(*((Path, "write_text") if fails == "write" else (os, "replace")), full)
    assert _command.main(["audit", str(MARKET), "--json", str(out)]) == 2
    shown = capsys.readouterr().err
    assert "No space left on device" in shown
    assert "Traceback" not in shown
    assert os.listdir(tmp_path) == ["audit.json"]
    assert out.read_bytes() == b"old"


def test_a_fault_of_ours_says_so_and_ends_with_status_1(monkeypatch, tmp_path, capsys):
    def broken(*args):
        raise RuntimeError("a mistake")

    monkeypatch.setattr(diffgame.market, "audit_market", broken)
    out = tmp_path / "audit.json"
    assert _command.main(["audit", str(MARKET), "--json", str(out)]) == 1
    shown = capsys.readouterr().err
    assert "RuntimeError: a mistake" in shown
    assert "fault of diffgame" in shown
    assert os.listdir(tmp_path) == []


def test_an_interrupt_writes_nothing(monkeypatch, tmp_path, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(diffgame.market, "audit_market", interrupted)
    out = tmp_path / "audit.json"
    assert _command.main(["audit", str(MARKET), "--json", str(out)]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [["--help"], ["audit", "--help"]], ids=" ".join)
def test_help_has_examples_and_exit_statuses_within_80_columns(arguments, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        _command.main(arguments)
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "diffgame audit examples/markets/opposed_users.json" in shown
    assert "exit status" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert ESCAPE not in shown


def long_names():
    contents = changed(
        name="A market with a name that is far longer than any line of a terminal, " * 2 + "end"
    )
    for n, user in enumerate(contents["users"]):
        user["name"] = f"a user whose name does not fit into any column, number {n}"
    for n, provider in enumerate(contents["providers"]):
        provider["name"] = (
            f"averyverylongnamewithoutanyspacesinitthatcannotbebrokenanywherenicelynumber{n}"
        )
        own = provider["objective"]
        provider["objective"] = {user["name"]: own for user in contents["users"]}
    return contents


@pytest.mark.parametrize("columns", ["80", None], ids=["COLUMNS=80", "no COLUMNS"])
@pytest.mark.parametrize("names", ["plain", "long"])
def test_in_a_pipe_lines_are_80_columns_of_plain_text(
    columns, names, audits, tmp_path, capsys, monkeypatch
):
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    audits()
    path = MARKET
    if names == "long":
        path = tmp_path / "long.json"
        path.write_text(json.dumps(long_names()), encoding="utf-8")
    assert _command.main(["audit", str(path)]) == 0
    shown = capsys.readouterr()
    assert ESCAPE not in shown.out + shown.err
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "-123.4568" in shown.out  # numbers are never cut
    assert "…" not in shown.out


def test_a_terminal_with_no_color_gets_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file, screen = read_market(MARKET), io.StringIO()
    print_report(file, made_up_report(file), Console(file=screen, force_terminal=True, width=80))
    codes = {
        code
        for found in re.findall(r"\x1b\[([0-9;]*)m", screen.getvalue())
        for code in found.split(";")
    }
    assert not [code for code in codes if re.fullmatch(r"[349]\d|10\d|[34]8", code)], codes


def test_ranges_that_are_not_certified_or_jump_are_said_to_be(capsys):
    file = read_market(MARKET)
    report = made_up_report(file)
    print_report(file, report, Console(width=200))
    shown = capsys.readouterr().out
    assert f"the exact range is not certified for {', '.join(file.users)}" in shown
    assert "if a gain of 1e-06 of a provider's range counts as none" in shown
    assert "a gain of 1e-09" not in shown
    report["personalized"]["equilibrium_range_certified"] = dict.fromkeys(file.users, True)
    print_report(file, report, Console(width=200))
    assert "not certified for" not in capsys.readouterr().out


def test_a_name_that_the_terminal_cannot_encode_is_no_fault(audits, tmp_path, monkeypatch):
    contents = changed(name="Crème brûlée — 市场")
    path = tmp_path / "market.json"
    path.write_text(json.dumps(contents), encoding="utf-8")
    audits()
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    assert _command.main(["audit", str(path)]) == 0
    assert b"Cr" in raw.getvalue()


def run(*arguments, **variables):
    environment = os.environ | {"COLUMNS": "80"} | variables
    return subprocess.run(
        [sys.executable, "-m", "diffgame", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
    )


def test_the_module_runs_as_the_command():
    shown = run("--version")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.fullmatch(r"diffgame \d+\.\d+\.\d+\S*\n", shown.stdout)


def test_a_bad_market_in_a_pipe_ends_with_status_2_and_one_line(tmp_path):
    shown = run("audit", str(tmp_path / "none.json"), NO_COLOR="1")
    assert (shown.returncode, shown.stdout) == (2, "")
    assert shown.stderr.startswith("diffgame: ")
    assert shown.stderr.count("\n") == 1
    assert ESCAPE not in shown.stderr
