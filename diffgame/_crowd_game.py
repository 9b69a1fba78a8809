"""Games whose users care about what the other users do."""

import abc
from typing import Any

import equinox as eqx
from jaxtyping import PyTree

from ._game import AbstractGame


class Crowded(eqx.Module):
    """What a user of an `AbstractCrowdGame` faces.

    - `posted`: what the providers offer her; leaves with a leading "providers" axis.
    - `crowd`: mass-weighted totals of everybody's contributions, in the structure of
        `crowd_start()`.
    """

    posted: PyTree
    crowd: PyTree


class AbstractCrowdGame(AbstractGame):
    """A game whose users respond to a crowd: low-dimensional totals of what all users do.

    Flows on links, the number of adopters, market demand. Its `user_utility`,
    `provider_payoffs` and `chance` get a `Crowded` as `offers`. The crowd is found once per
    profile, such that it is the crowd of the users' responses to it, and every derivative goes
    through it: providers who anticipate see their effect on the crowd.

    Each user takes the crowd as given, as one of very many, unless the response is `Nash`.
    """

    @abc.abstractmethod
    def contribution(self, choice: Any, offers: PyTree, user: PyTree) -> PyTree:
        """What one user of mass 1 adds to the crowd; `offers` are those posted to her."""

    @abc.abstractmethod
    def crowd_start(self) -> PyTree:
        """The crowd from which dynamics start; where there are several equilibria, this selects.

        It has the structure, shapes and units of the crowd.
        """
