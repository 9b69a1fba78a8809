"""A market with names: what a market file holds, checked when it is built."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Float64
from numpy.typing import ArrayLike

from . import _checks as checks
from ._checks import MarketFileError
from ._private import PrivateInformation, check_private, check_protocol, check_tables
from ._tree import Protocol

if TYPE_CHECKING:
    Text: TypeAlias = str
    Names: TypeAlias = Sequence[str]
    Labels: TypeAlias = Sequence[str | None]
    Numbers: TypeAlias = ArrayLike
    # A table, or a list of tables for a user with private information.
    Tables: TypeAlias = ArrayLike | Sequence[ArrayLike]
    PerProvider: TypeAlias = ArrayLike | Sequence[ArrayLike | Sequence[ArrayLike]]
    Private: TypeAlias = Sequence[PrivateInformation | None]
    Talk: TypeAlias = Protocol | None
else:
    # At run time a MarketFile itself checks what it is built from, to one clear message.
    Text = Names = Labels = Numbers = Tables = PerProvider = Private = Talk = Any


@dataclasses.dataclass(frozen=True, eq=False, init=False)
class MarketFile:
    """The contents of a market file: names, and tables with rows = actions, columns = states.

    Construction checks everything, so that a `MarketFile` can always be written. Tables may be
    given as arrays or as nested lists; they are copied into read-only float64 arrays, unchanged.

    Attributes:
        name: the title of the market.
        states: names of the states, unique; so are those of actions, users and providers.
        actions: names of the actions that every user chooses from.
        users: names of the users.
        providers: names of the providers.
        segments: one label per user, or None where she belongs to no segment.
        prior: probability of each state, from 0 to 1, sum 1 within 1e-9 (never rescaled).
        utility: what an action is worth to a user in a state. With private information in the
            market, a tuple of arrays, user by user: [values, actions, states] for a user who has
            some, [actions, states] for another.
        objective: what a user's action is worth to a provider in a state, per unit of her mass.
            With private information, a tuple over providers of tuples over users, as in `utility`.
        mass: positive weight of each user; the sum is free.
        private: what each user learns by herself, or None; given to nobody by default.
        conversation: rounds and numbers of messages; None: as many as anybody wants.

    Raises:
        MarketFileError: on the first fault found.

    Example:
        >>> judge = MarketFile(
        ...     name="Prosecutor and judge", states=("innocent", "guilty"),
        ...     actions=("acquit", "convict"), users=("judge",), providers=("prosecutor",),
        ...     segments=(None,), prior=np.array([0.7, 0.3]), utility=np.eye(2)[None],
        ...     objective=np.array([[[[0.0, 0.0], [1.0, 1.0]]]]), mass=np.array([1.0]),
        ... )
        >>> judge.objective.shape
        (1, 1, 2, 2)
    """

    name: str
    states: tuple[str, ...]
    actions: tuple[str, ...]
    users: tuple[str, ...]
    providers: tuple[str, ...]
    segments: tuple[str | None, ...]
    prior: Float64[np.ndarray, " states"]
    utility: (
        Float64[np.ndarray, "users actions states"]
        | tuple[Float64[np.ndarray, "*values actions states"], ...]
    )
    objective: (
        Float64[np.ndarray, "providers users actions states"]
        | tuple[tuple[Float64[np.ndarray, "*values actions states"], ...], ...]
    )
    mass: Float64[np.ndarray, " users"]
    private: tuple[PrivateInformation | None, ...]
    conversation: Protocol | None

    def __init__(
        self,
        *,
        name: Text,
        states: Names,
        actions: Names,
        users: Names,
        providers: Names,
        segments: Labels,
        prior: Numbers,
        utility: Tables,
        objective: PerProvider,
        mass: Numbers,
        private: Private | None = None,
        conversation: Talk = None,
    ):
        checks.check_text(name, "name")
        states = checks.unique_names(states, "states", "state")
        actions = checks.unique_names(actions, "actions", "action")
        users = checks.unique_names(users, "users", "user")
        providers = checks.unique_names(providers, "providers", "provider")
        prior = checks.finite_numbers(prior, "prior", "", states, "state")
        checks.check_prior(prior, states)
        segments = checks.entries(segments, "segments", "", users, "user")
        place = "users[{}].mass"
        mass = checks.finite_numbers(mass, "mass", "", users, "user", place)
        for j, user in enumerate(users):
            who = f"user {user!r}"
            if segments[j] is not None:
                checks.check_text(segments[j], checks.located(f"users[{j}].segment", who))
            if mass[j] <= 0:
                field = checks.located(place.format(j), who)
                remedy = "give a positive number, or leave the user out"
                raise MarketFileError(field, f"is {mass[j]!r}", remedy)
        known = [None] * len(users) if private is None else private
        known = checks.entries(known, "private", "", users, "user")
        for j, (user, own) in enumerate(zip(users, known, strict=True)):
            if own is not None:
                known[j] = check_private(own, f"users[{j}].private", f"user {user!r}", states)
        typed = any(own is not None for own in known)
        if conversation is not None:
            conversation = check_protocol(conversation, users, providers, actions, known)
        tables = checks.entries(utility, "utility", "", users, "user")
        utilities = [
            check_tables(table, f"users[{j}].utility", f"user {user!r}", actions, states, known[j])
            for j, (user, table) in enumerate(zip(users, tables, strict=True))
        ]
        per_provider = checks.entries(objective, "objective", "", providers, "provider")
        objectives = []
        for i, (provider, entry) in enumerate(zip(providers, per_provider, strict=True)):
            field, who = f"providers[{i}].objective", f"provider {provider!r}"
            tables = checks.entries(entry, field, who, users, "user")
            # One table for all users stands directly under "objective" in the file.
            shared = not typed and all(table is tables[0] for table in tables)
            fields = [field if shared else f"{field}[{user!r}]" for user in users]
            objectives.append(
                [
                    check_tables(table, place, who, actions, states, own)
                    for table, place, own in zip(tables, fields, known, strict=True)
                ]
            )
        if typed:
            # Users differ in their number of tables: no array holds them all.
            kept_utility = tuple(map(checks.read_only, utilities))
            kept_objective = tuple(tuple(map(checks.read_only, own)) for own in objectives)
        else:
            kept_utility, kept_objective = map(checks.read_only, (utilities, objectives))
        values = {
            "name": name,
            "states": states,
            "actions": actions,
            "users": users,
            "providers": providers,
            "segments": tuple(segments),
            "prior": checks.read_only(prior),
            "utility": kept_utility,
            "objective": kept_objective,
            "mass": checks.read_only(mass),
            "private": tuple(known),
            "conversation": conversation,
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)
