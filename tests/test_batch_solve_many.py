"""`solve_many`: every game to its own end, whatever its neighbours and however the work is cut."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame import Automatic, Constant, solve
from diffgame.batch import BatchError, BatchResult, Rung, default_ladder, solve_many

from .batches import CERTIFICATE, LADDER, RAISES, RESPONSE, make, stack

COUNT = 150


def run(count: int = COUNT, **settings) -> BatchResult:
    settings = {"ladder": LADDER, "certificate": CERTIFICATE, "chunk": 64} | settings
    return solve_many(make, RESPONSE, count=count, key=jax.random.key(3), **settings)


def arrays(found: BatchResult, keep=slice(None)) -> dict[str, np.ndarray]:
    named = {field.name: getattr(found, field.name) for field in dataclasses.fields(found)}
    named["prices"] = found.profiles.offer
    return {name: value[keep] for name, value in named.items() if isinstance(value, np.ndarray)}


def assert_same(left: BatchResult, right: BatchResult, keep=slice(None)) -> None:
    left_arrays, right_arrays = arrays(left, keep), arrays(right, keep)
    assert len(left_arrays) == 11
    for name, value in left_arrays.items():
        np.testing.assert_array_equal(value, right_arrays[name], strict=True, err_msg=name)


@pytest.fixture(scope="module")
def straight() -> BatchResult:
    return run()


def test_every_game_ends_certified(straight):
    assert straight.counts() == {"certified": COUNT}
    assert straight.games == COUNT
    assert np.all(straight.residual <= LADDER[0].tolerance)
    assert np.all(straight.gain <= CERTIFICATE.tolerance)


def test_a_batch_ends_where_solve_ends(straight):
    made = jax.random.split(jax.random.key(3))[0]
    for number in (0, 63, 64, COUNT - 1):
        game, start = make(number, jax.random.fold_in(made, number))
        rung = LADDER[0]
        found = solve(
            game,
            RESPONSE,
            start,
            rung.solver,
            tolerance=rung.tolerance,
            max_steps=rung.max_steps,
        )
        assert straight.steps[number] == found.steps
        np.testing.assert_allclose(
            straight.profiles.offer[number], found.profile.offer, rtol=0, atol=1e-12
        )
        np.testing.assert_allclose(straight.payoffs[number], found.outcome.payoffs, atol=1e-12)


@pytest.mark.parametrize("chunk", [1000, 37])
def test_no_result_depends_on_the_chunk(straight, chunk):
    assert_same(run(chunk=chunk), straight)


def test_a_shorter_batch_is_the_beginning_of_a_longer_one(straight):
    assert_same(run(100), straight, slice(100))


def test_poisoned_games_change_no_other():
    rng = np.random.default_rng(0)
    cost, quality = rng.uniform(size=(2, 5000, 2))
    poisoned = cost.copy()
    poison = {17: np.nan, 1000: RAISES, 4000: np.inf, 4100: -1e300, 4998: RAISES, 4999: RAISES}
    for number, value in poison.items():
        poisoned[number] = value
    settings = {"key": jax.random.key(0), "ladder": LADDER, "certificate": CERTIFICATE}
    runs = []
    for costs in (cost, poisoned):
        games, profiles = stack(jnp.asarray(costs), jnp.asarray(quality))
        runs.append(solve_many(games, RESPONSE, profiles, **settings))
    others = ~np.isin(np.arange(5000), list(poison))
    assert np.all(runs[0].certified)
    assert_same(*runs, others)
    assert not np.any(runs[1].certified[~others])
    assert sorted(runs[1].errors) == [1000, 4998, 4999]
    assert all("this game raises" in text for text in runs[1].errors.values())
    names = [runs[1].statuses[runs[1].status[number]] for number in (17, 1000, 4000)]
    assert names == ["nonfinite"] * 3


def test_unfinished_games_meet_the_next_rung(straight):
    few = int(np.median(straight.steps))
    brief = Rung("brief", Automatic(most_parameters=0), max_steps=few)
    found = run(ladder=(brief, *LADDER))
    quick = straight.steps <= few
    assert 0 < np.sum(quick) < COUNT
    np.testing.assert_array_equal(found.rung, np.where(quick, 0, 1))
    assert np.all(found.certified)
    assert np.all(found.steps[~quick] > few)
    alone = run(ladder=(brief,))
    assert alone.counts() == {"max_steps": np.sum(~quick), "certified": np.sum(quick)}
    for batch in (alone, found):
        assert_same(batch, straight, quick)


def test_an_early_stop_keeps_whole_blocks():
    seen = []
    found = run(progress=seen.append, until=lambda here: here.certified >= 64)
    assert [here.done for here in seen] == [64]
    assert seen[0].games == found.games == COUNT
    assert seen[0].certified_share == 1
    assert_same(found, run(64))


DEVICES = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
import numpy as np
from batches import CERTIFICATE, LADDER, RESPONSE, make
from diffgame.batch import solve_many
assert jax.device_count() == 4
digests = []
for count in (1, 2, 4):
    found = solve_many(
        make, RESPONSE, count=150, key=jax.random.key(3), ladder=LADDER, certificate=CERTIFICATE,
        devices=jax.devices()[:count],
    )
    parts = found.profiles.offer, found.residual, found.steps, found.gain, found.curvature
    digests.append([part.tobytes() for part in parts])
assert digests[0] == digests[1] == digests[2]
print(found.counts())
"""

KILLED = """
import os, signal, sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
from batches import CERTIFICATE, LADDER, RESPONSE, make
from diffgame.batch import solve_many
def kill(here):
    if here.done >= 128:
        os.kill(os.getpid(), signal.SIGKILL)
solve_many(
    make, RESPONSE, count=150, key=jax.random.key(3), ladder=LADDER, certificate=CERTIFICATE,
    chunk=64, checkpoint=sys.argv[2], progress=kill,
)
"""


def child(code: str, *arguments: str, flags: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {flags}"}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_no_result_depends_on_the_number_of_devices():
    done = child(DEVICES, flags="--xla_force_host_platform_device_count=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "{'certified': 150}"


def test_a_killed_run_goes_on_and_ends_bitwise_equal(straight, tmp_path):
    done = child(KILLED, str(tmp_path))
    assert done.returncode == -9, done.stderr
    kept = sorted(path.name for path in tmp_path.glob("block-*.npz"))
    assert kept == [
        "block-000000000000-000000000064.npz",
        "block-000000000064-000000000128.npz",
    ]
    # As if it had been killed while it wrote the next one.
    (tmp_path / ".block-000000000128-000000000150.npz.partial").write_bytes(b"PK")
    seen = []
    assert_same(run(checkpoint=tmp_path, progress=seen.append), straight)
    assert [np.isnan(here.rate) for here in seen] == [True, True, False]


@pytest.fixture
def folder(tmp_path):
    run(64, checkpoint=tmp_path)
    return tmp_path


def test_a_damaged_block_is_one_clear_line(folder):
    (path,) = folder.glob("block-*.npz")
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(BatchError, match="cut short or damaged; delete it") as refusal:
            run(64, checkpoint=folder)
        assert "\n" not in str(refusal.value)


def test_a_changed_byte_is_found(folder):
    (path,) = folder.glob("block-*.npz")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    with pytest.raises(BatchError, match="cut short or damaged; delete it"):
        run(64, checkpoint=folder)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"count": 65}, "games"),
        ({"chunk": 32}, "chunk"),
        ({"lanes": 32}, "lanes"),
        ({"certificate": None}, "certificate"),
        ({"ladder": default_ladder()}, "ladder"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_settings_do_not_resume(folder, settings, name):
    with pytest.raises(BatchError, match=f"was made with {name} = .*; name another folder"):
        run(**({"count": 64, "checkpoint": folder} | settings))


def test_other_games_do_not_resume(folder):
    def shifted(index, key):
        game, start = make(index, key)
        return eqx.tree_at(lambda game: game.cost, game, game.cost + 1e-9), start

    with pytest.raises(BatchError, match="was made with source = "):
        solve_many(
            shifted,
            RESPONSE,
            count=64,
            key=jax.random.key(3),
            ladder=LADDER,
            certificate=CERTIFICATE,
            chunk=64,
            checkpoint=folder,
        )


def test_other_versions_do_not_resume(folder):
    path = folder / "settings.json"
    path.write_text(path.read_text().replace('"diffgame": "', '"diffgame": "0.0.'))
    with pytest.raises(BatchError, match=r"was made with diffgame = 0\.0\."):
        run(64, checkpoint=folder)


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BatchError, match="cannot be made a folder"):
        run(64, checkpoint=tmp_path / "file")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"count": 0}, "count"),
        ({"chunk": 0}, "chunk is 0"),
        ({"lanes": 0}, "lanes 0"),
        ({"ladder": ()}, "the ladder is empty"),
    ],
)
def test_settings_out_of_range_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        run(**settings)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [({"tolerance": 0.0}, "tolerance is 0.0"), ({"max_steps": 0}, "max_steps is 0")],
)
def test_rungs_out_of_range_are_refused(settings, problem):
    with pytest.raises(ValueError, match=problem):
        Rung("first", Automatic(), **settings)


def test_arrays_that_disagree_are_refused():
    games, _ = stack(jnp.ones((3, 2)), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match=r"leading axes of \[2, 3\]"):
        solve_many(games, RESPONSE, Constant(jnp.ones((2, 2))), key=jax.random.key(0))


def test_games_in_float32_are_refused():
    def single(index, key):
        game, start = make(index, key)
        return jax.tree.map(
            lambda leaf: leaf.astype(jnp.float32) if eqx.is_array(leaf) else leaf, (game, start)
        )

    with pytest.raises(ValueError, match="certificates need float64"):
        solve_many(single, RESPONSE, count=3, key=jax.random.key(0))
