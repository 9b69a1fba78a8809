"""The whole audit of a market: what personalization does for its users, with certificates."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._stored_program import stored_jit
from ._alignment import alignment_distances, strong_alignment_distances
from ._conversation_audit import (
    TIMINGS,
    alignment_market,
    best_conversations,
    conversation_mode,
    find_ranges,
)
from ._equilibrium_values import equilibrium_values
from ._file import MarketFile
from ._market import Market
from ._search import (
    Annealed,
    MarketEquilibrium,
    MarketStatus,
    begin_search,
    finish_search,
    prepare_search,
)
from ._typed_tables import TypedTables, typed_tables
from ._value import full_information, uninformed
from ._worst_case import worst_case_losses

MODES = ("personalized", "anonymous")
EVERYONE = "everyone"


@dataclasses.dataclass(frozen=True)
class AuditSettings:
    """How an audit searches: random starts, seed, modes, tolerance (share of payoff ranges).

    `timing`: whether users with private information pick a provider "before" they learn it or
    "after"; without private information it makes no difference.
    """

    starts: int = 64
    seed: int = 0
    modes: Sequence[str] = MODES
    tolerance: float = 1e-6
    timing: str = "before"

    def __post_init__(self):
        if self.starts < 0:
            raise ValueError(f"starts is {self.starts}; give a number of at least 0.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed is {self.seed}; give a number from 0 to 4294967295.")
        if not 1e-9 <= self.tolerance <= 0.1:
            raise ValueError(f"tolerance is {self.tolerance}; give a number from 1e-9 to 0.1.")
        for mode in self.modes:
            if mode not in MODES:
                raise ValueError(f"modes has {mode!r}; choose from {', '.join(MODES)}.")
        if not self.modes or len(set(self.modes)) < len(self.modes):
            raise ValueError("modes is empty or names one twice; name one or both, each once.")
        if self.timing not in TIMINGS:
            raise ValueError(f"timing is {self.timing!r}; choose from {', '.join(TIMINGS)}.")


def market_of(file: MarketFile) -> Market:
    """The personalized market of a file, in float64.

    **Errors:** ValueError for users with private information, which a `Market` cannot hold.
    """
    for user, own in zip(file.users, file.private, strict=True):
        if own is not None:
            raise ValueError(
                f"market_of: user {user!r} has private information; use conversation_of, or "
                "leave `private` out."
            )
    return Market(file.prior, file.utility, file.objective, file.mass)


@stored_jit
def _user_facts(market: Market):
    users = jax.vmap(
        lambda utility, objective: (
            full_information(market.prior, utility),
            uninformed(market.prior, utility),
            {
                kind: found.distance
                for kind, found in alignment_distances(utility, objective).items()
            },
        ),
        in_axes=(0, 1),
    )(market.utility, market.objective)
    strong = strong_alignment_distances(market.utility, market.objective, market.mass)
    return users, strong


_worst_cases = stored_jit(worst_case_losses)


# The lowest value may jump with the gain that counts as none: shares of each provider's range.
DELTAS = (0.0, 1e-9, 1e-6)


@stored_jit
def _ranges(market: Market):
    """Lowest and highest personalized equilibrium value, and completeness: [deltas, users]."""

    def ends(utility, objective, delta):
        values = equilibrium_values(market.prior, utility, objective, delta)
        return values.worst()[0], values.best()[0], values.complete

    by_user = jax.vmap(ends, in_axes=(0, 1, None))
    by_delta = jax.vmap(by_user, in_axes=(None, None, 0))
    return by_delta(market.utility, market.objective, jnp.array(DELTAS))


def _named(names: Sequence[str], values: Any) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _equilibrium(file: MarketFile, labels: Sequence[str], end: MarketEquilibrium) -> dict[str, Any]:
    """One end point as the audit reports it: everything needed to check it again."""
    providers = range(len(file.providers))
    return {
        "status": end.status.value,
        "start": end.start,
        "user_values": _named(file.users, end.user_values),
        "provider_payoffs": _named(file.providers, end.provider_payoffs),
        "exploitability": {"lower": float(end.lower.max()), "upper": float(end.upper.max())},
        "policies": {
            file.providers[i]: {
                label: table.tolist() for label, table in zip(labels, end.tables[i], strict=True)
            }
            for i in providers
        },
        "choices": {
            user: {
                "provider": file.providers[end.chosen[j]],
                "actions": [file.actions[a] for a in end.actions[j][end.chosen[j]]],
            }
            for j, user in enumerate(file.users)
        },
    }


def _mode(
    file: MarketFile,
    market: Market,
    annealed: Annealed,
    labels: Sequence[str],
    settings: AuditSettings,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    progress("worst-case certificate")
    worst = jax.tree.map(np.asarray, _worst_cases(market))
    found = finish_search(annealed, settings.tolerance, progress)
    babbling = found.babbling
    silent = {MarketStatus.certified: True, MarketStatus.exploitable: False}
    certified = [e for e in found.equilibria if e.status is MarketStatus.certified]
    return {
        "worst_case_loss": {
            "total": float(worst.total.loss),
            "per_user": _named(file.users, worst.per_user.loss),
        },
        "babbling_is_equilibrium": silent.get(babbling.status),
        "babbling_gain": _named(file.providers, babbling.lower),
        "best": _equilibrium(file, labels, found.best()),
        "worst": _equilibrium(file, labels, found.worst()),
        "certified": len(certified),
        "searched": len(found.equilibria),
    }


def _facts(
    file: MarketFile, settings: AuditSettings, full: Any, none: Any, distances: Any, strong: Any
) -> dict[str, Any]:
    """What an audit says before it speaks of equilibria."""
    used = dataclasses.asdict(settings) | {"modes": list(settings.modes)}
    # Each mode of a market with private information or conversation says it.
    del used["timing"]
    return {
        "market": file.name,
        "settings": used,
        "users": {
            user: {
                "full_information": float(full[j]),
                "uninformed": float(none[j]),
                "alignment": {kind: float(distances[kind][j]) for kind in distances},
            }
            for j, user in enumerate(file.users)
        },
        "strong_alignment": {
            offset: {
                "distance": float(found.distance),
                "weights": _named(file.providers, found.weights),
                "scales": _named(file.users, found.scales),
            }
            for offset, found in strong.items()
        },
    }


def _audit_conversation(
    file: MarketFile, settings: AuditSettings, progress: Callable[[str], None]
) -> dict[str, Any]:
    """The audit of a market whose users talk or know something themselves."""
    tables: TypedTables = typed_tables(file)
    (_, _, distances), strong = _user_facts(alignment_market(tables))
    values = tables.full_information(), tables.uninformed()
    report = _facts(file, settings, *values, distances, strong)
    for user, value in best_conversations(file, tables).items():
        report["users"][user]["best_conversation"] = value
    labels = {"personalized": list(file.users), "anonymous": [EVERYONE]}
    ranges = None
    if "personalized" in settings.modes or len(file.users) == 1:
        progress("equilibrium values of each user")
        ranges = find_ranges(file, tables, settings.timing)
    for mode in MODES:
        if mode in settings.modes:
            report[mode] = conversation_mode(
                file,
                tables,
                labels[mode],
                ranges,
                timing=settings.timing,
                starts=settings.starts,
                seed=settings.seed,
                tolerance=settings.tolerance,
                progress=lambda text, mode=mode: progress(f"{mode}: {text}"),
            )
    return report


def audit_market(
    file: MarketFile,
    settings: AuditSettings | None = None,
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Audit a market: alignment, certificates, and the best and worst equilibria found.

    **Returns** the structure that `diffgame audit --json` writes: numbers, names and lists only.
    Per user: values of full and of no information, alignment distances. Per mode: the
    worst-case loss over all equilibria, whether babbling is an equilibrium (None: unknown) and
    what each provider gains from it, the best and worst equilibrium found with policies,
    recommended actions and the bracket of exploitability, and, personalized, the exact range of
    each user's equilibrium values. For a file with `conversation` or `private`: per user also
    `best_conversation`, and modes about menus (docs/menus.md), in which what is not known is None
    and `not_computed` says why.

    **Errors:** ValueError for settings out of range, or without float64.

    >>> import numpy as np
    >>> from diffgame.market import AuditSettings, MarketFile, audit_market
    >>> judge = MarketFile(
    ...     name="court", states=("innocent", "guilty"), actions=("acquit", "convict"),
    ...     users=("judge",), providers=("prosecutor",), segments=(None,), prior=[0.7, 0.3],
    ...     utility=[np.eye(2)], objective=[[[[0, 0], [1, 1]]]], mass=[1],
    ... )
    >>> found = audit_market(judge, AuditSettings(starts=1, modes=("personalized",)))
    >>> print(round(found["personalized"]["worst"]["provider_payoffs"]["prosecutor"], 6))
    0.6
    """
    settings = AuditSettings() if settings is None else settings
    progress("alignment")
    if file.conversation is not None or any(own is not None for own in file.private):
        return _audit_conversation(file, settings, progress)
    market = market_of(file)
    markets = {"personalized": market, "anonymous": market.anonymous()}
    new = [prepare_search(markets[mode], settings.starts, settings.seed) for mode in settings.modes]
    new.append(_user_facts.prepare(market))
    new += [_worst_cases.prepare(markets[mode]) for mode in settings.modes]
    if "personalized" in settings.modes:
        new.append(_ranges.prepare(market))
    if any(new):
        progress("alignment; compiling, once for markets of these sizes")
    # All at once, beside all else: annealing is most of the work.
    annealed = {
        mode: begin_search(markets[mode], settings.starts, settings.seed) for mode in settings.modes
    }
    facts = jax.tree.map(np.asarray, _user_facts(market))
    (full, none, distances), strong = facts
    report = _facts(file, settings, full, none, distances, strong)
    if "personalized" in settings.modes:
        mode = _mode(
            file,
            market,
            annealed["personalized"],
            file.users,
            settings,
            lambda text: progress(f"personalized: {text}"),
        )
        low, high, complete = map(np.asarray, _ranges(market))
        ranges = [
            {
                "range": {
                    user: [float(low[d, j]), float(high[d, j])] for j, user in enumerate(file.users)
                },
                "certified": {user: bool(complete[d, j]) for j, user in enumerate(file.users)},
            }
            for d in range(len(DELTAS))
        ]
        mode["equilibrium_range"] = ranges[0]["range"]
        mode["equilibrium_range_certified"] = ranges[0]["certified"]
        mode["equilibrium_range_delta"] = {
            f"{delta:g}": found for delta, found in zip(DELTAS[1:], ranges[1:], strict=True)
        }
        report["personalized"] = mode
    if "anonymous" in settings.modes:
        report["anonymous"] = _mode(
            file,
            markets["anonymous"],
            annealed["anonymous"],
            [EVERYONE],
            settings,
            lambda text: progress(f"anonymous: {text}"),
        )
    return report
