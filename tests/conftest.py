"""What every test runs under: float64, strict shapes, no numerical surprise, fixed randomness."""

import hypothesis
import jax
import jaxtyping
import numpy as np
import pytest

# Before any import of the package, so that tests and docstring examples see checked signatures.
jaxtyping.install_import_hook("diffgame", "beartype.beartype")

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
np.seterr(divide="raise", over="raise", invalid="raise")

hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(params=[0, 1, 2], ids="seed={}".format)
def key(request: pytest.FixtureRequest) -> jax.Array:
    """A random key from each of three fixed seeds; the test's id shows which one failed."""
    return jax.random.key(request.param)
