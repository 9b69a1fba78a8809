"""A user's own solver: one Python file."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from .._problem import AbstractProblem
from .._solver import AbstractSolver


class SolverFileError(ValueError):
    """The file has no usable solver, told in one line."""


class _Functions(AbstractSolver):
    """A solver made of a file's two functions."""

    begin: Callable[..., Any] = eqx.field(static=True)
    advance: Callable[..., Any] = eqx.field(static=True)

    def init(self, problem: AbstractProblem, parameters: PyTree) -> PyTree:
        return self.begin(problem, parameters)

    def step(
        self, problem: AbstractProblem, parameters: PyTree, field: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        return self.advance(problem, parameters, field, state)


def read_solver(path: Path) -> AbstractSolver:
    """The solver that a file defines: `solver`, or the functions `init` and `step`.

    `solver` is an instance of `AbstractSolver`; `init(problem, parameters)` returns the first
    state, `step(problem, parameters, field, state)` the next parameters and state.

    **Errors:** SolverFileError where the file defines neither; whatever running it raises.
    """
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SolverFileError(f"{path}: is not a Python file; name one that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    spec.loader.exec_module(module)
    solver = getattr(module, "solver", None)
    if solver is not None:
        if not isinstance(solver, AbstractSolver):
            raise SolverFileError(
                f"{path}: `solver` is of type {type(solver).__name__}; make it an instance of "
                "diffgame.AbstractSolver"
            )
        return solver
    begin, advance = getattr(module, "init", None), getattr(module, "step", None)
    if not (callable(begin) and callable(advance)):
        raise SolverFileError(
            f"{path}: defines no solver; define `solver`, an AbstractSolver, or the functions "
            "init(problem, parameters) and step(problem, parameters, field, state)"
        )
    return _Functions(begin, advance)
