"""The process of one solver: `python -m diffgame.bench._worker`, spoken to in messages."""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._terminal import prepare_compiler
from ._messages import serve
from ._solver_file import read_solver
from ._suite import Answer, Budget, Game, Suite
from ._through_solve import solving


def _make(setup: dict[str, Any]) -> Callable[[Game], Answer]:
    import jax

    prepare_compiler()
    # A program from an earlier run's cache would make this run's first call look cheap.
    jax.config.update("jax_enable_compilation_cache", False)
    suite: Suite = importlib.import_module(setup["module"]).SUITE
    budget = Budget(setup["steps"], setup["seconds"])
    if setup["file"] is None:
        named = {solver.name: solver for solver in suite.solvers}
        make = named[setup["solver"]].make
        assert make is not None
        return make(budget)
    assert suite.pose is not None
    solver = read_solver(Path(setup["file"]))
    return solving(suite.pose, lambda: solver)(budget)


if __name__ == "__main__":
    serve(_make)
