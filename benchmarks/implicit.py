"""Values and gradients through strongly convex lower levels, against optimistix and unrolling."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

import diffgame as dg

from ._harness import Row, arguments, machine, median_seconds, report, require

UNROLLED_STEPS = 200
PROVIDERS = 2, 4, 8, 16, 32, 64
SAME_VALUE = 1e-9
SAME_GRADIENT = 1e-7
# An unrolled gradient is only as good as its last step.
SAME_UNROLLED = 1e-4


class LowerLevel(dg.AbstractGame):
    """u = offers . y - y . curvature . y / 2 - sum of y^4 / 4: Newton has to iterate."""

    curvature: Float[Array, "..."]
    choice_set: dg.Constrained
    users: PyTree = eqx.field(default_factory=lambda: jnp.ones(1))
    mass: Float[Array, " users"] = eqx.field(default_factory=lambda: jnp.ones(1))

    def user_utility(self, choice, offers, user):
        """Minus the loss."""
        return -loss(choice, (self.curvature, offers))

    def provider_payoffs(self, choice, offers, user):
        """What is differentiated."""
        return jnp.sum(choice**2)[None]


def loss(choice, data):
    """Minus the utility; a curvature that is a vector stands for a banded matrix."""
    curvature, offers = data
    if curvature.ndim == 2:
        bent = curvature @ choice
    else:
        # Neighbours push each other: eigenvalues lie within 1/2 of those of the diagonal.
        neighbours = jnp.roll(choice, 1) + jnp.roll(choice, -1)
        bent = curvature * choice + neighbours / 4
    return choice @ bent / 2 + jnp.sum(choice**4) / 4 - offers @ choice


def draw(batch: int, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Curvatures with eigenvalues from 1 to about 5, and offers, normal of size 3."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(batch, size, size)) / np.sqrt(size)
    curvature = np.einsum("kij,klj->kil", root, root) + np.eye(size)
    return curvature, 3 * rng.normal(size=(batch, size))


def ours(curvature, offers):
    """The response, differentiable by the implicit function theorem."""
    choice_set = dg.Constrained(offers.shape[-1])
    game = LowerLevel(curvature=curvature, choice_set=choice_set)
    return dg.Concave()(game, offers, jnp.ones(()))


def newton(curvature, offers):
    """The peer: a root of the gradient by optimistix's Newton with its implicit adjoint."""
    optimistix = require("optimistix")
    solver = optimistix.Newton(rtol=1e-12, atol=1e-12)
    start = jnp.zeros_like(offers)
    found = optimistix.root_find(
        jax.grad(loss), solver, start, args=(curvature, offers), throw=False, max_steps=100
    )
    return found.value


def newton_cg(curvature, offers):
    """The peer without matrices: optimistix's Newton with lineax's conjugate gradients."""
    optimistix, lineax = require("optimistix"), require("lineax")
    linear = lineax.CG(rtol=1e-10, atol=1e-10)
    solver = optimistix.Newton(rtol=1e-12, atol=1e-12, linear_solver=linear)
    found = optimistix.root_find(
        jax.grad(loss),
        solver,
        jnp.zeros_like(offers),
        args=(curvature, offers),
        tags=frozenset({lineax.positive_semidefinite_tag}),
        adjoint=optimistix.ImplicitAdjoint(linear),
        throw=False,
        max_steps=100,
    )
    return found.value


def unrolled(curvature, offers):
    """The other peer: gradient steps, differentiated one by one."""

    def step(choice, _):
        # The largest curvature met: 5 by the matrix and 3 y^2 by the quartic, |y| below 3.
        return choice - jax.grad(loss)(choice, (curvature, offers)) / 16, None

    return jax.lax.scan(step, jnp.zeros_like(offers), length=UNROLLED_STEPS)[0]


def value_and_gradient(respond: Callable) -> Callable:
    """Of the sum of squares of the response, in the offers and the curvature."""

    def total(data):
        return jnp.sum(respond(*data) ** 2)

    return jax.value_and_grad(total)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A compiled function of data, its compile time and the bytes that it works in."""

    run: Callable
    seconds: float
    working_bytes: int


def compile_one(function: Callable, data: Any) -> Compiled:
    """Compile for data of this shape."""
    begin = time.perf_counter()
    compiled = jax.jit(function).lower(data).compile()
    seconds = time.perf_counter() - begin
    analysis = compiled.memory_analysis()
    return Compiled(compiled, seconds, 0 if analysis is None else analysis.temp_size_in_bytes)


def _share(found, wanted, tolerance: float) -> float:
    """Share of items whose value and gradient agree, relative to 1 plus their size."""
    fine = True
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        one, other = (np.asarray(part).reshape(len(wanted[0]), -1) for part in (one, other))
        near = np.isfinite(one) & (np.abs(one - other) <= tolerance * (1 + np.abs(other)))
        fine = fine & near.all(axis=1)
    return float(np.mean(fine))


def _solved(data, choice_of: Callable) -> float:
    """Share of choices whose slope is zero to rounding."""
    choices = jax.jit(jax.vmap(choice_of))(*data)
    slopes = jax.jit(jax.vmap(lambda choice, *own: jax.grad(loss)(choice, own)))(choices, *data)
    return float(np.mean(np.max(np.abs(slopes), axis=1) <= SAME_VALUE))


def _seconds(side: Compiled, data: Any) -> float:
    return median_seconds(lambda: jax.block_until_ready(side.run(data)), 15)


def _row(work, n, own, peer_name, peer, data, tolerance, solved, remark="") -> Row:
    found, wanted = jax.device_get((own.run(data), peer.run(data)))
    if np.ndim(found[0]) == 0:
        found, wanted = jax.tree.map(lambda leaf: leaf[None], (found, wanted))
    same = _share(found, wanted, tolerance)
    seconds = [_seconds(side, data) for side in (own, peer)]
    memory = f"working memory {own.working_bytes / 2**20:.3g} MiB, "
    memory += f"peer {peer.working_bytes / 2**20:.3g} MiB"
    details = f"{memory}; peer compiles in {peer.seconds:.1f} s; values and gradients agree to "
    details += f"{tolerance:g} in {same:.4g}{remark}"
    return Row(
        work, n, seconds[0], peer_name, seconds[1], solved * same, same, own.seconds, n, details
    )


def compare_batch(batch: int, size: int) -> list[Row]:
    """Many small lower levels at once."""
    data = tuple(map(jnp.asarray, draw(batch, size)))
    both = {
        name: compile_one(jax.vmap(value_and_gradient(respond)), data)
        for name, respond in (("ours", ours), ("newton", newton), ("unrolled", unrolled))
    }
    solved = _solved(data, ours)
    work = f"value+gradient, {size} variables"
    peers = (
        ("vmapped optimistix.Newton, implicit adjoint", "newton", SAME_GRADIENT),
        (f"{UNROLLED_STEPS} unrolled gradient steps", "unrolled", SAME_UNROLLED),
    )
    return [
        _row(work, batch, both["ours"], title, both[name], data, tolerance, solved)
        for title, name, tolerance in peers
    ]


def compare_large(size: int) -> Row:
    """One large lower level; memory at twice the size shows how it grows."""

    def data_of(size):
        rng = np.random.default_rng(1)
        return jnp.asarray(rng.uniform(1, 5, size)), jnp.asarray(3 * rng.normal(size=size))

    data = data_of(size)
    own, peer = (compile_one(value_and_gradient(side), data) for side in (ours, newton_cg))
    twice = compile_one(value_and_gradient(ours), data_of(2 * size))
    growth = twice.working_bytes / max(own.working_bytes, 1)
    solved = _solved(tuple(part[None] for part in data), ours)
    return _row(
        f"value+gradient, {size} variables",
        1,
        own,
        "optimistix.Newton with lineax.CG, implicit adjoint by CG",
        peer,
        data,
        SAME_GRADIENT,
        solved,
        f"; twice the size takes {growth:.2f} times the memory",
    )


class Crowded(dg.AbstractGame):
    """N providers offer one good each; u = offers . y - |y|^2 - (sum y)^2 / (2 N) - sum y^4 / 4."""

    users: Float[Array, " users"]
    mass: Float[Array, " users"]
    choice_set: dg.Constrained

    def user_utility(self, choice, offers, user):
        """Users differ in how much they value all goods."""
        joint = jnp.sum(choice) ** 2 / (2 * choice.size)
        return user * offers @ choice - choice @ choice - joint - jnp.sum(choice**4) / 4

    def provider_payoffs(self, choice, offers, user):
        """Sales, at a cost that grows with the offer."""
        return choice - offers * choice / 4


def compare_providers(counts, users: int) -> list[Row]:
    """Each provider's own gradient, against N times one pass of the users' responses."""
    rows = []
    for count in counts:
        game = Crowded(
            jnp.linspace(0.5, 1.5, users), jnp.full(users, 1 / users), dg.Constrained(count)
        )
        profile = dg.Constant(jnp.linspace(1.0, 2.0, count))

        def field(profile, game=game):
            return dg.pseudogradient(game, dg.Concave(), profile)

        def payoffs(profile, game=game):
            return dg.provider_payoffs(game, dg.Concave(), profile)

        own, once = compile_one(field, profile), compile_one(payoffs, profile)
        one_by_one = np.diag(np.asarray(jax.jit(jax.jacfwd(payoffs))(profile).offer))
        same = np.abs(np.asarray(own.run(profile).offer) - one_by_one) <= SAME_GRADIENT
        seconds, single = (_seconds(side, profile) for side in (own, once))
        share = float(np.mean(same))
        rows.append(
            Row(
                f"pseudogradient, {count} providers",
                count,
                seconds,
                "one response pass per provider",
                single * count,
                share,
                share,
                own.seconds,
                1,
                f"{seconds / single:.2f} response passes, {seconds / single / count:.3f} x N",
            )
        )
    return rows


def main(argv: list[str] | None = None) -> None:
    """Print the comparisons; with --json also write them."""
    parser = arguments("implicit", __doc__ or "")
    options = parser.parse_args(argv)
    jax.config.update("jax_enable_x64", True)
    require("optimistix")
    if options.quick:
        rows = [*compare_batch(8, 4), compare_large(300), *compare_providers((2,), 4)]
    else:
        rows = [
            *compare_batch(1000, 10),
            compare_large(1000),
            *compare_providers(PROVIDERS, 100),
        ]
    report(rows, machine(["equinox", "optimistix", "lineax"]), options.json)


if __name__ == "__main__":
    main()
