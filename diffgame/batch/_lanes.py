"""One program for a fixed number of games at a time, whatever the batch, on every device.

Vectorised code may round differently for another number of games, and a program that is spread
over devices (`jax.shard_map`) for another number of devices. So there is one program, for `lanes`
games on one device; blocks are filled up with copies, and every device runs its own blocks. Then a
game's result depends neither on the size of the batch nor on how it is cut or spread.
"""

import concurrent.futures
import re
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, PyTree


@eqx.filter_jit
def _run(function: Callable, shared: PyTree, lanes: PyTree) -> PyTree:
    return jax.vmap(lambda lane: function(shared, lane))(lanes)


def _first_line(error: Exception) -> str:
    """What the game said; Equinox wraps it in stacks and advice for debugging."""
    text = str(error)
    said = re.search(r"EquinoxRuntimeError: (.+)", text)
    return said[1] if said else next(iter(text.split("\n")))


class Lanes:
    """`each` lanes on every device, `width` in all."""

    def __init__(self, each: int, devices: Sequence[Any]):
        self.devices = tuple(devices)
        self.each = each
        self.width = each * len(self.devices)
        # A thread per device: a call waits for its device, and compiles where it runs.
        self._threads = concurrent.futures.ThreadPoolExecutor(len(self.devices))

    def place(self, shared: PyTree) -> tuple[PyTree, ...]:
        """What all lanes share, once on every device."""
        arrays, static = eqx.partition(shared, eqx.is_array)
        return tuple(eqx.combine(jax.device_put(arrays, device), static) for device in self.devices)

    def run(
        self,
        function: Callable[[Any, Any], PyTree],
        shared: Sequence[PyTree],
        lanes: PyTree,
        active: Bool[np.ndarray, " lanes"],
    ) -> tuple[PyTree, dict[int, str]]:
        """`function(shared, lane)` per lane; returns NumPy arrays and which lanes raised what.

        Lanes that are not active return zeros; None if nothing ran through.
        """

        def work(number: int):
            first = number * self.each
            numbers = first + np.flatnonzero(active[first : first + self.each])
            return self._run_on(number, function, shared[number], lanes, numbers)

        parts = list(self._threads.map(work, range(len(self.devices))))
        failed = {lane: text for _, failures in parts for lane, text in failures.items()}
        found = [(kept, part) for pieces, _ in parts for kept, part in pieces]
        if not found:
            return None, failed

        def gather(*leaves):
            result = np.zeros((self.width, *leaves[0].shape[1:]), leaves[0].dtype)
            for (kept, _), leaf in zip(found, leaves, strict=True):
                result[kept] = leaf[: len(kept)]
            return result

        return jax.tree.map(gather, *[part for _, part in found]), failed

    def _run_on(self, number, function, shared, lanes, numbers):
        # If a game raises, its block runs again in halves until the culprits are alone: the
        # others' results stay what they would have been.
        pieces, failed = [], {}
        pending = [numbers] if len(numbers) else []
        while pending:
            group = pending.pop()
            where = np.concatenate([group, np.full(self.each - len(group), group[0])])
            mine = jax.tree.map(lambda leaf, at=where: leaf[at], lanes)
            try:
                mine = jax.device_put(mine, self.devices[number])
                found = jax.device_get(_run(function, shared, mine))
            except (eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError) as error:
                if len(group) > 1:
                    half = len(group) // 2
                    pending += [group[:half], group[half:]]
                else:
                    failed[int(group[0])] = _first_line(error)
            else:
                pieces.append((group, found))
        return pieces, failed
