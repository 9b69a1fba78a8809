"""The solver of linear programs: by extreme rays, by rows, or by interior points."""

from jaxtyping import Array, Int

from ._extreme_rays import Rays, count_rays
from ._interior_point import solve_by_interior_point
from ._linear_program import Dual, LinearProgram, Primal
from ._ray_solver import solve_by_rays
from ._row_solver import solve_by_rows

# Beyond these sizes rays take longer to list than the other methods need.
_STATES = 3
_ROWS = 10
_COLUMNS = 256
# With more rows in all interior points need less time; with sums there is a start without search.
_ALL_ROWS, _ALL_ROWS_WITH_SUMS = 64, 100


def are_few(blocks: int, inequalities: int, states: int, slacks: int = 0) -> bool:
    """Whether a program has so few extreme rays that the simplex method over them is faster."""
    return states <= _STATES and blocks * count_rays(inequalities, states) + slacks <= _COLUMNS


def solve_linear_program(
    program: LinearProgram, rays: Rays | None = None
) -> tuple[Primal, Dual, Int[Array, ""]]:
    """Solve one program; batch it with `jax.vmap`.

    **Arguments:** `rays`: of `program.within`, if they are known.

    **Returns:** a point, its multipliers, and the number of steps. Nothing is claimed about them:
    `check_optimum` says what they prove.
    """
    blocks, inequalities, states = program.within.shape
    few = are_few(blocks, inequalities, states, len(program.slack_cost))
    few = few and len(program.target) <= _ROWS
    if rays is not None or few:
        return solve_by_rays(program, rays)
    most = _ALL_ROWS if program.sums is None else _ALL_ROWS_WITH_SUMS
    if len(program.target) + blocks * inequalities <= most:
        return solve_by_rows(program)
    return solve_by_interior_point(program)
