"""The axes of a search's columns, besides the games', and how many numbers are many."""

from ._market_family import MarketFamily

# The columns of markets by name; those not named here have one number per game.
AXES: dict[str, tuple[str, ...]] = {
    "user_values": ("user",),
    "full_information": ("user",),
    "uninformed": ("user",),
    "mass": ("user",),
    "group": ("user",),
    "payoffs": ("provider",),
    "prior": ("state",),
    "utility": ("user", "action", "state"),
    "objective": ("provider", "user", "action", "state"),
    "signal": ("provider", "group", "message", "state"),
    "recommended": ("user", "message"),
    "chosen": ("user",),
}
# All that is needed to examine an end again, and nothing else.
GAME_DATA = ("prior", "utility", "objective", "signal", "recommended", "chosen", "group")
# Games and profiles are kept unasked up to so many numbers in all: 160 MB.
MOST_NUMBERS = 20_000_000


def axes_of(name: str, dimensions: int) -> tuple[str, ...]:
    """The names of a column's axes after the games'."""
    if name in AXES:
        return AXES[name]
    # A policy's parameters: providers lead, the other axes are the policy's own.
    own = tuple(f"{name} {number}" for number in range(1, dimensions - 1))
    return ("provider", *own)[: dimensions - 1]


def numbers_per_market(family: MarketFamily) -> int:
    """How many numbers a market of the family and its profile are."""
    table = family.users * family.actions * family.states
    signals = family.providers * len(family.groups) * family.messages * family.states
    return (
        family.states
        + (1 + family.providers) * table
        + signals
        + family.users * (family.messages + 2)
    )
