"""The benchmark of finite games: peers that are missing, slow or broken are rows, not ends."""

import json
import math
import sys

import numpy as np
import pytest

from benchmarks import finite


def test_rows_are_written_and_a_missing_gambit_is_one_that_says_so(tmp_path, capsys):
    out = tmp_path / "rows.json"
    finite.main(["--quick", "--gambit", str(tmp_path / "python"), "--json", str(out)])
    rows = json.loads(out.read_text())["rows"]
    assert [row["ours_certified"] for row in rows] == [1] * 4
    assert math.isnan(rows[0]["peer_certified"])
    assert [row["peer_certified"] for row in rows[1:]] == [1] * 3
    assert "name one that has pygambit by --gambit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("body", "told"),
    [("while True: pass", "no answer within 1 s"), ("raise SystemExit(3)", "status 3: no message")],
)
def test_a_gambit_that_hangs_or_ends_is_told(body, told, tmp_path):
    peer = tmp_path / "peer"
    peer.write_text(f"#!{sys.executable}\n{body}\n")
    peer.chmod(0o755)
    assert finite.Gambit(peer, 1.0).solve("logit", np.zeros((1, 2, 2, 2))) == told


@pytest.mark.parametrize("option", [["--sample", "0"], ["--batch", "2"]], ids=" ".join)
def test_sizes_that_leave_nothing_to_time_are_refused(option, capsys):
    with pytest.raises(SystemExit) as stopped:
        finite.main(option)
    assert stopped.value.code == 2
    assert "at least" in capsys.readouterr().err
