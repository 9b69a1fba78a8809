"""Several processes on one batch: the same bits, nothing lost, and no wait without an end."""

import concurrent.futures
import errno
import json
import os
import re
import resource
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from diffgame.batch import BatchError, Processes, _processes, solve_many
from diffgame.batch._blocks import Block, block_bounds, join_blocks, run_blocks
from diffgame.batch._checkpoint import Checkpoint

from .batches import RESPONSE, make

GAMES = 23
BOUNDS = list(block_bounds(GAMES, 5))
SETTINGS = {"family": "of numbers"}


def compute(first: int, stop: int) -> Block:
    games = np.arange(first, stop)
    return {"value": np.sin(games), "certified": games % 3 > 0}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(_processes, "_BEAT_SECONDS", 0.02)
    monkeypatch.setattr(_processes, "_POLL_SECONDS", 0.01)


def work(folder, index=0, count=2, *, wait=30.0, task=compute, settings=SETTINGS, **told):
    told = {"progress": None, "until": None} | told
    blocks = run_blocks(
        BOUNDS, task, folder, settings, processes=Processes(index, count, wait), **told
    )
    return join_blocks(blocks)


def together(*tasks):
    """Each in a thread of its own; returns what came of it, errors too."""
    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as threads:
        begun = [threads.submit(task) for task in tasks]
        return [future.exception() or future.result() for future in begun]


def assert_same(left: dict, right: dict, keep: slice = slice(None)) -> None:
    assert left.keys() == right.keys()
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name][keep], strict=True, err_msg=name)


STRAIGHT = compute(0, GAMES)


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_blocks_and_each_returns_all(tmp_path, count):
    computed = []

    def task(first, stop):
        computed.append(first)
        return compute(first, stop)

    runs = [lambda index=index: work(tmp_path, index, count, task=task) for index in range(count)]
    for found in together(*runs):
        assert_same(found, STRAIGHT)
    assert sorted(computed) == [first for first, _ in BOUNDS]


def test_process_0_tells_how_far_the_whole_batch_is(tmp_path):
    told, silent = [], []
    together(
        lambda: work(tmp_path, 0, progress=told.append),
        lambda: work(tmp_path, 1, progress=silent.append),
    )
    assert len(told) == len(BOUNDS)
    assert (told[-1].done, told[-1].certified) == (GAMES, np.sum(STRAIGHT["certified"]))
    assert silent == []


def test_an_early_stop_is_the_same_for_all(tmp_path):
    def until(here):
        return here.certified >= 6

    found = together(lambda: work(tmp_path, 0, until=until), lambda: work(tmp_path, 1))
    for each in (*found, work(tmp_path, 0, 1, until=until)):
        assert_same(each, STRAIGHT, slice(10))


def test_what_a_failed_process_leaves_is_resumed(tmp_path):
    computed = []

    def fails(first, stop):
        if first == 15:
            raise ValueError("out of luck")
        return compute(first, stop)

    def task(first, stop):
        computed.append(first)
        return compute(first, stop)

    problems = together(lambda: work(tmp_path, 0), lambda: work(tmp_path, 1, task=fails))
    assert isinstance(problems[0], BatchError)
    assert str(problems[0]).startswith("process 1 has ended; its games from 15 on are not finished")
    assert str(problems[1]) == "out of luck"
    assert_same(work(tmp_path, 0, 1, task=task), STRAIGHT)
    assert computed == [15]


def announce_until_admitted(folder):
    """Play process 1 up to where it is part of the run."""
    run, limit = folder / "run.json", time.monotonic() + 30
    while not (run.exists() and "1" in json.loads(run.read_text())["admitted"]):
        assert time.monotonic() < limit
        if run.exists():
            said = {"mark": "played", "state": "works", "beat": 1}
            _processes._write(folder / "process-0001.json", said)
        time.sleep(0.01)


def test_a_process_that_falls_silent_is_given_up(tmp_path):
    problem, _ = together(
        lambda: work(tmp_path, 0, wait=0.5), lambda: announce_until_admitted(tmp_path)
    )
    assert str(problem).startswith("process 1 gave no sign of life for 0.5 s; its games from 5 on")


def test_a_process_that_is_known_to_be_dead_is_given_up_at_once(tmp_path):
    def dies():
        announce_until_admitted(tmp_path)
        _processes.forget_process(tmp_path, 1)

    problem, _ = together(lambda: work(tmp_path, 0, wait=600.0), dies)
    assert str(problem).startswith("process 1 has ended; its games from 5 on are not finished")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (0, "process 1 did not begin within 0.2 s; its games from 5 on are not finished; finished"),
        (1, "process 0 did not begin there within 0.2 s; start it, or name a folder that all"),
    ],
)
def test_a_process_that_never_begins_is_given_up(tmp_path, index, message):
    with pytest.raises(BatchError, match=re.escape(message)) as problem:
        work(tmp_path, index, wait=0.2)
    assert "\n" not in str(problem.value)


def test_a_run_whose_folder_another_takes_over_ends(tmp_path):
    computing, over = threading.Event(), threading.Event()

    def task(first, stop):
        computing.set()
        assert over.wait(30)
        return compute(first, stop)

    def later():
        assert computing.wait(30)
        found = work(tmp_path, 0, 1)
        over.set()
        return found

    problem, found = together(lambda: work(tmp_path, 0, task=task, wait=1.0), later)
    assert str(problem) == f"{tmp_path}: another run has taken it over; this one ends"
    assert_same(found, STRAIGHT)


def test_processes_with_other_settings_do_not_mix(tmp_path):
    problems = together(
        lambda: work(tmp_path, 0), lambda: work(tmp_path, 1, settings={"family": "of others"})
    )
    assert "was made with family = of numbers, not of others" in str(problems[1])
    assert "process 1 has ended" in str(problems[0])


def test_several_processes_need_a_folder():
    with pytest.raises(ValueError, match="checkpoint is None in 2 processes; name a folder"):
        solve_many(make, RESPONSE, count=8, key=jax.random.key(0), processes=Processes(0, 2))


@pytest.mark.parametrize("values", [(2, 2, 1.0), (-1, 2, 1.0), (0, 1, 0.0)])
def test_numbers_that_are_no_processes_are_refused(values):
    with pytest.raises(ValueError, match=r"Processes: (index|wait) is"):
        Processes(*values)


# Disks and folders.


def test_a_disk_that_is_full_loses_no_finished_block(tmp_path, monkeypatch):
    written = []
    sync = os.fsync

    def fsync(file):
        written.append(file)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(BatchError, match=r"cannot be written \(No space left on device\); finis"):
        work(tmp_path, 0, 1)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == [
        "block-000000000000-000000000005.npz",
        "block-000000000005-000000000010.npz",
        "settings.json",
    ]
    assert_same(work(tmp_path, 0, 1), STRAIGHT)


def test_a_file_that_the_system_cuts_short_is_not_kept(tmp_path):
    def large(first, stop):
        return compute(first, stop) | {"large": np.zeros((stop - first, 20_000))}

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(BatchError, match=r"cannot be written \(File too large\)") as problem:
            work(tmp_path, 0, 1, task=large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(problem.value)
    assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


def test_a_folder_that_is_not_writable_is_one_clear_line(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(BatchError, match=r"cannot be made a folder.*Permission denied.*another"):
        work(tmp_path / "blocks", 0, 1)


def test_a_folder_that_is_no_longer_writable_keeps_its_blocks(tmp_path, monkeypatch):
    checkpoint = Checkpoint(tmp_path, SETTINGS)
    checkpoint.write(*BOUNDS[0], compute(*BOUNDS[0]))
    replace = os.replace

    def refuse(source, target):
        if "block" in str(target):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BatchError, match=r"cannot be written \(Permission denied\)"):
        work(tmp_path, 0, 1)
    assert checkpoint.finished() == {BOUNDS[0]}
