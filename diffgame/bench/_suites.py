"""Where the suites are; a suite is imported only when it is asked for."""

import importlib

from ._suite import Suite

# Module of each suite; it defines `SUITE`.
SUITES = {
    "markets": "diffgame.bench._suite_markets",
    "matrix": "diffgame.bench._suite_matrix",
    "zero_sum": "diffgame.bench._suite_zero_sum",
    "pricing": "diffgame.bench._suite_pricing",
    "tolls": "diffgame.bench._suite_tolls",
    "generalized_nash": "diffgame.bench._suite_generalized_nash",
    "bilevel": "diffgame.bench._suite_bilevel",
}


def load_suite(name: str) -> Suite:
    """The suite of that name, one of `SUITES`."""
    return importlib.import_module(SUITES[name]).SUITE
