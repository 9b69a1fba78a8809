"""The command: exit statuses, one-line errors, output that fits a terminal of 80 columns."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from diffgame import _command
from diffgame._command import main

MARKETS = Path(__file__).parents[1] / "examples" / "markets"
E1 = MARKETS / "opposed_users.json"
FEW = ["--starts", "1"]


def refusal(capsys, *arguments) -> str:
    """What a refused call prints: one line on standard error, nothing else."""
    assert main(["audit", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("diffgame: ")
    assert printed.err.count("\n") == 1
    return printed.err


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("{", ["line 1", "not JSON"]),
        ("{}", ["format", "missing"]),
        ('{"format": "diffgame.market/2"}', ["format", "diffgame.market/1"]),
    ],
    ids=["not JSON", "empty object", "other version"],
)
def test_a_bad_file_is_refused_in_one_line(content, fragments, tmp_path, capsys):
    path = tmp_path / "market.json"
    path.write_text(content)
    message = refusal(capsys, path)
    for fragment in [str(path), *fragments]:
        assert fragment in message


def test_a_typo_in_a_field_names_the_field_meant(tmp_path, capsys):
    document = json.loads(E1.read_text())
    document["users"][0]["utilty"] = document["users"][0].pop("utility")
    path = tmp_path / "typo.json"
    path.write_text(json.dumps(document))
    message = refusal(capsys, path)
    assert "users[0].utilty" in message
    assert "'utility'" in message


def test_a_missing_file_is_refused_in_one_line(capsys):
    assert "no such file" in refusal(capsys, "no/such/market.json")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--starts", "-1"),
        ("--seed", "-1"),
        ("--tolerance", "0"),
        ("--tolerance", "nan"),
        ("--modes", "public"),
        ("--modes", ""),
        ("--modes", "anonymous,anonymous"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(option, value, capsys):
    assert option in refusal(capsys, E1, option, value)


def test_an_output_that_cannot_be_written_is_refused_before_the_work(tmp_path, capsys):
    assert "directory" in refusal(capsys, E1, "--json", tmp_path)
    assert "folder" in refusal(capsys, E1, "--json", tmp_path / "none" / "out.json")
    assert not list(tmp_path.iterdir())


def test_unknown_options_exit_with_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["audit", str(E1), "--strats", "3"])
    assert stopped.value.code == 2
    assert "--strats" in capsys.readouterr().err


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    assert "diffgame audit examples/markets/opposed_users.json" in capsys.readouterr().out


def fake_audit(status):
    def audit(file, settings, progress):
        progress("one stage")
        ends = {"best": {"status": "certified"}, "worst": {"status": status}}
        return {"settings": {}, **dict.fromkeys(settings.modes, ends)}

    return audit


@pytest.mark.parametrize(("status", "code"), [("certified", 0), ("local", 3), ("exploitable", 3)])
def test_exit_status_says_whether_all_is_certified(status, code, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("diffgame.market.audit_market", fake_audit(status))
    monkeypatch.setattr("diffgame.market.print_report", lambda *arguments: None)
    monkeypatch.setattr(_command, "_prepare_compiler", lambda: None)
    target = tmp_path / "out.json"
    assert main(["audit", str(E1), "--json", str(target)]) == code
    assert json.loads(target.read_text())["personalized"]["worst"]["status"] == status
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    assert "one stage" in capsys.readouterr().err


def test_our_own_fault_exits_with_1(monkeypatch, capsys):
    def fail(*arguments):
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr("diffgame.market.audit_market", fail)
    monkeypatch.setattr(_command, "_prepare_compiler", lambda: None)
    assert main(["audit", str(E1)]) == 1
    assert "fault of diffgame" in capsys.readouterr().err


def test_an_interrupt_leaves_nothing_behind(monkeypatch, tmp_path, capsys):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("diffgame.market.audit_market", interrupt)
    monkeypatch.setattr(_command, "_prepare_compiler", lambda: None)
    assert main(["audit", str(E1), "--json", str(tmp_path / "out.json")]) == 130
    assert not list(tmp_path.iterdir())
    assert "interrupted" in capsys.readouterr().err


def test_a_pipe_of_80_columns_gets_plain_text(tmp_path):
    """The whole program, as installed, on a market of one provider."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "diffgame",
            "audit",
            str(MARKETS / "prosecutor.json"),
            *FEW,
            "--modes",
            "personalized",
            "--json",
            str(tmp_path / "out.json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": "", "COLUMNS": "80", "NO_COLOR": "1", "XDG_CACHE_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    report = json.loads((tmp_path / "out.json").read_text())
    payoff = report["personalized"]["worst"]["provider_payoffs"]
    assert list(payoff.values()) == pytest.approx([0.6], abs=1e-6)
