"""Processes of a search, started by one command, by hand, by a scheduler, or as a job."""

import argparse
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffgame._terminal import Refused
from diffgame.batch import _launch, _processes
from diffgame.batch._search_command import add_arguments, run
from diffgame.batch._search_file import read_search
from diffgame.batch._search_run import run_search

EXAMPLE = Path(__file__).parents[1] / "examples" / "searches" / "pricing.py"
SEARCH = """
format = "diffgame.search/1"
games = 50
lanes = 8
chunk = 5
[factory]
function = "pricing:duopolies"
arguments = { temperature = 0.5 }
[[ladder]]
solver = "adaptive extragradient"
[certificate]
starts = 1
steps = 5
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_processes, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(_processes, "_POLL_SECONDS", 0.01)


def options(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args([str(argument) for argument in arguments])


@pytest.fixture
def spec(tmp_path, monkeypatch):
    (tmp_path / "pricing.py").write_text(EXAMPLE.read_text())
    (tmp_path / "spec.toml").write_text(SEARCH)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "spec.toml"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes", 0], "--processes 0: give at least 1"),
        (["--processes", 2, "--wait", 0], "--wait 0: give seconds above 0"),
        (["--processes", 2, "--wait", "nan"], "--wait nan: give seconds above 0"),
        (["--processes", 2, "--process-id", 1], "--coordinator and --process-id: give both"),
        (["--processes", 2, "--coordinator", "a:1"], "--coordinator and --process-id: give both"),
        (["--process-id", 0, "--coordinator", "a:1"], "--process-id 0: is none of --processes N"),
        (
            ["--processes", 2, "--process-id", 2, "--coordinator", "a:1"],
            "--process-id 2: is none of --processes 2; number them from 0",
        ),
        (
            ["--processes", 2, "--process-id", 1, "--coordinator", "here"],
            "--coordinator here: write HOST:PORT",
        ),
        (["--scheduler", "--process-id", 1, "--coordinator", "a:1"], "--scheduler: leave out"),
        (["--submit", "local", "--submit-options", "nodes"], "has 'nodes'; write NAME=VALUE"),
        (
            ["--submit", "local", "--processes", 3, "--submit-options", "nodes=2"],
            "nodes=2: must divide --processes 3",
        ),
        (["--submit", "slurm"], "--submit slurm: Could not detect"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_are_refused(spec, tmp_path, monkeypatch, arguments, message):
    # Where there is a SLURM, it is not to be found.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused, match=re.escape(message)) as refusal:
        run(options(spec, tmp_path / "out.nc", *arguments))
    assert "\n" not in str(refusal.value)


def test_submitting_without_submitit_names_the_extra(spec, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(Refused, match=r"pip install 'diffgame\[cluster\]'"):
        run(options(spec, tmp_path / "out.nc", "--submit", "local"))


def python(code: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", "-c", code])


def test_the_others_go_on_when_one_is_killed(tmp_path, capsys):
    (tmp_path / "process-0001.json").write_text("{}")
    killed = python("import os; os.kill(os.getpid(), 9)")
    statuses = _launch._follow([python("import time; time.sleep(0.5)"), killed], tmp_path)
    assert statuses == [0, -signal.SIGKILL]
    assert "process 1 was killed (SIGKILL); finished blocks are kept" in capsys.readouterr().err
    assert not (tmp_path / "process-0001.json").exists()


def test_the_others_end_when_one_reports_an_error(tmp_path):
    slow = python("import time; time.sleep(600)")
    try:
        assert _launch._follow([python("raise SystemExit(2)"), slow], tmp_path) == [2]
        assert slow.poll() is None
    finally:
        slow.kill()
        slow.wait()


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "diffgame", "search", *(str(argument) for argument in arguments)]


def finish(*arguments, timeout=300, **environment) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | environment,
    )


def test_a_process_that_never_joins_is_one_line_after_the_limit(spec, tmp_path):
    with_socket = "127.0.0.1:1"
    done = finish(
        spec, tmp_path / "out.nc", "--processes", 2, "--process-id", 1,
        "--coordinator", with_socket, "--wait", 1,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        "diffgame: process 1 of 2: the others did not all join at 127.0.0.1:1 within 1 s; start "
        "all of them, with the same --coordinator and --processes, or raise --wait\n"
    )


def assert_results(path: Path, columns: dict[str, np.ndarray]) -> None:
    import xarray

    with xarray.open_dataset(path, engine="h5netcdf") as found:
        for name, values in columns.items():
            expected = values.astype(np.int8) if values.dtype == bool else values
            np.testing.assert_array_equal(found[name].to_numpy(), expected, err_msg=name)


@pytest.fixture
def straight(spec, tmp_path):
    return run_search(read_search(spec), tmp_path / "straight")


def test_two_processes_find_bitwise_what_one_finds(spec, tmp_path, straight):
    done = finish(spec, tmp_path / "out.nc", "--processes", 2)
    assert done.returncode == 0, done.stderr
    assert "50 of 50 games, 100.00% certified" in done.stderr
    assert "Written to" in done.stdout
    assert_results(tmp_path / "out.nc", straight)
    assert not (tmp_path / "out.nc.blocks").exists()


def await_blocks(count: int, folder: Path, process: subprocess.Popen) -> None:
    limit = time.monotonic() + 200
    while len(list(folder.glob("block-*.npz"))) < count:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


def child_of(parent: int, words: str) -> int:
    """The process that `parent` started with these words on its command line."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            status = (path / "stat").read_text().rpartition(")")[2].split()
            line = (path / "cmdline").read_text().replace("\0", " ")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(status[1]) == parent and words in line:
            return int(path.name)
    raise AssertionError(f"{parent} has no child with {words}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def begin(*arguments) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


LONG = SEARCH.replace("games = 50", "games = 600")


@pytest.mark.campaign
@pytest.mark.parametrize("victim", [0, 3])
def test_one_of_four_is_killed_and_two_go_on_to_the_same_bits(spec, tmp_path, victim):
    spec.write_text(LONG)
    straight = run_search(read_search(spec), tmp_path / "straight")
    out, blocks = tmp_path / "out.nc", tmp_path / "out.nc.blocks"
    running = begin(spec, out, "--processes", 4)
    await_blocks(20, blocks, running)
    os.kill(child_of(running.pid, f"--member {victim}/4"), signal.SIGKILL)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 2
    assert f"process {victim} was killed (SIGKILL); finished blocks are kept" in said
    assert f"process {victim} has ended; its games from" in said
    kept = len(list(blocks.glob("block-*.npz")))
    assert 20 <= kept < 120
    assert not out.exists()
    done = finish(spec, out, "--processes", 2, "--resume")
    assert done.returncode == 0, done.stderr
    assert "resumed" in done.stderr
    assert_results(out, straight)


@pytest.mark.campaign
def test_processes_end_with_the_one_that_started_them(spec, tmp_path):
    spec.write_text(LONG)
    straight = run_search(read_search(spec), tmp_path / "straight")
    out, blocks = tmp_path / "out.nc", tmp_path / "out.nc.blocks"
    running = begin(spec, out, "--processes", 2)
    await_blocks(5, blocks, running)
    children = [child_of(running.pid, f"--member {index}/2") for index in range(2)]
    running.kill()
    running.communicate(timeout=60)
    limit = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < limit
        time.sleep(0.1)
    assert len(list(blocks.glob("block-*.npz"))) < 120
    done = finish(spec, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert_results(out, straight)


@pytest.mark.campaign
def test_a_stopped_process_is_given_up_after_the_limit(spec, tmp_path):
    spec.write_text(LONG)
    out, blocks = tmp_path / "out.nc", tmp_path / "out.nc.blocks"
    running = begin(spec, out, "--processes", 2, "--wait", 20)
    await_blocks(5, blocks, running)
    stopped = child_of(running.pid, "--member 1/2")
    os.kill(stopped, signal.SIGSTOP)
    _, said = running.communicate(timeout=300)
    assert running.returncode == 2
    assert "diffgame: process 1 gave no sign of life for 20 s; its games from" in said
    assert not Path(f"/proc/{stopped}").exists()


@pytest.mark.campaign
@pytest.mark.parametrize("how", ["by hand", "scheduler"])
def test_processes_that_meet_find_the_same_bits(spec, tmp_path, straight, monkeypatch, how):
    address = f"127.0.0.1:{free_port()}"
    running = []
    for index in range(2):
        if how == "scheduler":
            # What SLURM's srun sets.
            monkeypatch.setenv("SLURM_JOB_ID", str(4000 + os.getpid() % 90))
            monkeypatch.setenv("SLURM_NTASKS", "2")
            monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
            monkeypatch.setenv("SLURM_PROCID", str(index))
            monkeypatch.setenv("SLURM_LOCALID", str(index))
            words = ["--scheduler"]
        else:
            words = ["--processes", 2, "--process-id", index, "--coordinator", address]
        running.append(begin(spec, tmp_path / "out.nc", *words))
    said = [each.communicate(timeout=300) for each in running]
    assert [each.returncode for each in running] == [0, 0], said
    assert said[1] == ("", "")
    assert_results(tmp_path / "out.nc", straight)


@pytest.mark.campaign
def test_a_job_finds_the_same_bits(spec, tmp_path, straight):
    done = finish(spec, tmp_path / "out.nc", "--submit", "local", "--processes", 2)
    assert done.returncode == 0, done.stderr
    assert "50 of 50 games, 100.00% certified" in done.stderr
    assert "Written to" in done.stdout
    assert_results(tmp_path / "out.nc", straight)


DISTRIBUTED = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
port, index, tests, folder = sys.argv[1:]
if port != "0":
    jax.distributed.initialize(
        f"127.0.0.1:{port}", 2, int(index), cluster_detection_method="deactivate"
    )
sys.path.insert(0, tests)
from batches import CERTIFICATE, LADDER, RESPONSE, make
from diffgame.batch import solve_many
found = solve_many(
    make, RESPONSE, count=150, key=jax.random.key(3), ladder=LADDER, certificate=CERTIFICATE,
    chunk=20, checkpoint=folder,
)
parts = found.profiles.offer, found.residual, found.steps, found.gain, found.curvature
print(hash(tuple(part.tobytes() for part in parts)), flush=True)
if port != "0":
    assert jax.process_count() == 2
    jax.distributed.shutdown()
"""


@pytest.mark.campaign
def test_solve_many_takes_its_part_from_jax_distributed(tmp_path):
    port, tests = free_port(), str(Path(__file__).parent)
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", DISTRIBUTED, str(port), str(index), tests, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for index in range(2)
    ]
    said = [each.communicate(timeout=300)[0] for each in running]
    assert [each.returncode for each in running] == [0, 0]
    done = subprocess.run(
        [sys.executable, "-c", DISTRIBUTED, "0", "0", tests, str(tmp_path / "alone")],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert said[0] == said[1] == done.stdout
