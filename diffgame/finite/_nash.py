"""What the searches for a Nash equilibrium return."""

import equinox as eqx
from jaxtyping import Array, Bool, Int

from ._check import NashCheck
from ._normal_form import Profile


class NashStatus(eqx.Enumeration):
    """What is known about a Nash equilibrium; the text of each member says what to do next."""

    certified = "A Nash equilibrium to the tolerance of its check: nothing is left to do."
    max_steps = "The search did not end within `max_steps`: raise it, or try the other method."
    lost = (
        "The path could not be followed to its end, as happens in degenerate games: for two "
        "players use `lemke_howson`, otherwise change the payoffs slightly."
    )
    inexact = (
        "The search ended, but the check found a regret above the tolerance: raise `tolerance`, "
        "or try the other method."
    )
    nonfinite = "A payoff is not finite: correct it."


class NashEquilibrium(eqx.Module):
    """A Nash equilibrium and what is known about it.

    - `profile`: one vector of probabilities per player. `check`: its certificate.
    - `status`: a `NashStatus`; only `certified` is an equilibrium. `steps`: of the search.
    """

    profile: Profile
    check: NashCheck
    status: NashStatus
    steps: Int[Array, ""]


def judged(
    check: NashCheck,
    ended: Bool[Array, ""],
    otherwise: NashStatus,
    finite: Bool[Array, ""],
) -> NashStatus:
    """The status of a search that `ended` by its own rule, or for the reason `otherwise`."""
    status = NashStatus.where(ended, NashStatus.inexact, otherwise)
    status = NashStatus.where(check.certified, NashStatus.certified, status)
    return NashStatus.where(finite, status, NashStatus.nonfinite)
