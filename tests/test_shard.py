"""`shard_users`: one game's users on many devices, and no result that depends on how many."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffgame import Constant, Logit, Wardrop, play, provider_payoffs, shard_users, user_sharding
from diffgame.games import Adoption, Congestion, LogitBertrand

from .sharded_users import COUNT, pricing, value_and_gradient

DEVICES = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
import numpy as np
from diffgame import shard_users
import sharded_users
assert jax.device_count() == 4
find = getattr(sharded_users, sys.argv[3])
game, response, profile = sharded_users.GAMES[sys.argv[2]]()
whole = find(game, response, profile)
digests = []
for count in (1, 2, 4):
    mesh = jax.make_mesh((count,), ("users",), devices=jax.devices()[:count])
    spread = shard_users(game, mesh)
    assert len(spread.mass.sharding.device_set) == count
    found = find(spread, response, profile)
    digests.append(sharded_users.in_bytes(found))
    for one, other in zip(whole, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-11)
assert digests[0] == digests[1] == digests[2]
print(len(digests[0]))
"""

PROCESS = """
import sys
import jax
jax.config.update("jax_enable_x64", True)
sys.path.insert(0, sys.argv[1])
rank, processes, port = map(int, sys.argv[2:5])
jax.config.update("jax_num_cpu_devices", 4 // processes)
if processes > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, rank)
from diffgame import shard_users
import sharded_users
assert jax.device_count() == 4 and jax.local_device_count() == 4 // processes
game, response, profile = sharded_users.pricing()
game = shard_users(game)
found = sharded_users.value_and_gradient(game, response, profile)
end = sharded_users.solve(
    game, response, profile, sharded_users.CLIMB, max_steps=20, chunk=7, throw=False
)
found = *found, end.profile.offer, end.residual, end.outcome.payoffs
print([part.hex() for part in sharded_users.in_bytes(found)], flush=True)
"""


def start(code: str, *arguments: object, flags: str = "") -> subprocess.Popen[str]:
    # The compiler as users have it: which products round into sums is its choice, and without
    # optimisation it may choose otherwise for one device than for two.
    environment = os.environ | {"XLA_FLAGS": flags}
    command = [sys.executable, "-c", code, str(Path(__file__).parent), *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment)


def finish(process: subprocess.Popen[str]) -> str:
    try:
        out, error = process.communicate(timeout=1800)
    finally:
        process.kill()
    assert process.returncode == 0, error
    return out.strip()


def on_four_devices(game: str, find: str) -> int:
    flags = "--xla_force_host_platform_device_count=4"
    return int(finish(start(DEVICES, game, find, flags=flags)))


def test_value_and_gradient_do_not_depend_on_the_number_of_devices():
    assert on_four_devices("pricing", "value_and_gradient") == 2


@pytest.mark.campaign
@pytest.mark.parametrize(
    ("game", "find", "count"),
    [
        ("pricing", "climb", 5),
        ("pricing", "certified", 8),
        ("linear", "certified", 8),
        ("adoption", "certified", 8),
    ],
)
def test_no_result_depends_on_the_number_of_devices(game: str, find: str, count: int):
    assert on_four_devices(game, find) == count


@pytest.mark.campaign
def test_no_result_depends_on_the_number_of_processes():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    alone = finish(start(PROCESS, 0, 1, port))
    pair = [start(PROCESS, rank, 2, port) for rank in range(2)]
    together = [finish(process) for process in pair]
    assert alone.startswith("['")
    assert [said.splitlines()[-1] for said in together] == [alone, alone]


@pytest.fixture(scope="module")
def spread():
    game, response, profile = pricing()
    return shard_users(game), response, profile


def test_users_are_filled_up_with_users_of_no_mass(spread):
    game = spread[0]
    assert game.mass.shape == (1024,)
    np.testing.assert_array_equal(game.mass[COUNT:], 0)
    np.testing.assert_array_equal(game.mass[:COUNT], pricing()[0].mass)
    first = np.asarray(game.users.quality[:1])
    np.testing.assert_array_equal(game.users.quality[COUNT:], np.repeat(first, 24, axis=0))


def test_it_differs_from_the_whole_in_rounding_only(spread):
    whole = value_and_gradient(*pricing())
    for one, other in zip(whole, value_and_gradient(*spread), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-13, atol=1e-15)


def test_every_user_plays_as_in_the_whole(spread):
    game, response, profile = pricing()
    whole, parts = play(game, response, profile), play(*spread)
    np.testing.assert_allclose(parts.choices[:COUNT], whole.choices, rtol=1e-13)
    np.testing.assert_allclose(parts.payoffs, whole.payoffs, rtol=1e-13)
    assert np.all(np.isfinite(parts.utilities))


def test_a_crowd_is_found_across_devices():
    game = Adoption(effect=jnp.array(1.0), users=jnp.linspace(-1.0, 1.0, 70))
    profile = Constant(jnp.array([1.0]))
    whole = play(game, Logit(1.0), profile)
    parts = play(shard_users(game), Logit(1.0), profile)
    assert parts.interaction is not None
    np.testing.assert_allclose(parts.interaction.crowd, whole.interaction.crowd, rtol=1e-12)


def test_a_poisoned_user_is_no_number():
    game = LogitBertrand(jnp.zeros(2), jnp.ones(2), jnp.ones(100).at[50].set(jnp.nan))
    payoffs = provider_payoffs(shard_users(game), Logit(1.0), Constant(jnp.ones(2)))
    assert np.all(np.isnan(payoffs))


class ReadsEverybody(LogitBertrand):
    def provider_payoffs(self, choice, offers, user):
        return super().provider_payoffs(choice, offers, user) * jnp.mean(self.users)


def test_a_game_that_reads_all_users_is_one_clear_line(spread):
    game = shard_users(ReadsEverybody(jnp.zeros(2), jnp.ones(2), jnp.ones(3)))
    with pytest.raises(ValueError, match="use the argument `user`, or give what all users share"):
        provider_payoffs(game, Logit(1.0), Constant(jnp.ones(2)))


def test_joint_choices_are_one_clear_line():
    numbers = jnp.ones(2)
    game = Congestion(jnp.eye(2), numbers, numbers, numbers, tolled=jnp.ones((1, 1, 2)))
    with pytest.raises(TypeError, match="Wardrop: it finds the choices of all users in one system"):
        play(shard_users(game), Wardrop(), Constant(jnp.zeros((1, 2))))


def test_a_number_that_does_not_divide_is_one_clear_line():
    users = jax.device_put(jnp.ones(100), user_sharding())
    game = LogitBertrand(jnp.zeros(2), jnp.ones(2), users)
    with pytest.raises(ValueError, match=r"100 users .* a multiple of 64; shard_users"):
        provider_payoffs(game, Logit(1.0), Constant(jnp.ones(2)))


def test_a_mesh_without_users_is_one_clear_line():
    with pytest.raises(ValueError, match=r"the mesh has the axes \('games',\); name one of them"):
        shard_users(pricing()[0], jax.make_mesh((1,), ("games",)))


def test_traced_users_are_one_clear_line():
    game = pricing()[0]
    with pytest.raises(ValueError, match="the users are traced; call it outside of jit"):
        jax.jit(lambda game: shard_users(game).mass)(game)
