"""What every answer of `design` must be."""

from diffgame._design import Design, DesignStatus
from diffgame._equilibrium import Status


def is_stationary(found: Design) -> bool:
    """To first order, all constraints kept to 1e-8, equilibrium certified at every step."""
    answer = found.answer
    certified = [bool(step.equilibrium.status == Status.certified) for step in answer.steps]
    assert answer.residual <= 1e-8, DesignStatus[found.status]
    assert answer.violation <= 1e-8
    assert all(certified)
    return bool(found.status == DesignStatus.stationary)
