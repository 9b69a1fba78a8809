"""The architecture: imports point one way, the public names are few, the run time is lean."""

import ast
import graphlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

import diffgame

# A module may import from its own layer and from the layers before it.
LAYERS = (
    "_stored_program",
    "_terminal",
    "_page",
    "_implicit",
    "_linear_program",
    "_cholesky",
    "_normal_equations",
    "_ties",
    "_lanes",
    "_interior_point",
    "_extreme_rays",
    "_simplex_columns",
    "_revised_simplex",
    "_ray_solver",
    "_row_solver",
    "_program_solver",
    "_loop",
    "_ascent",
    "_constraints",
    "_augmented",
    "_choice_set",
    "_policy",
    "_game",
    "_kkt",
    "_constrained_search",
    "_no_optimum",
    "_unconstrained_search",
    "_constrained_response",
    "_response",
    "_shard",
    "_total",
    "_fixed_point",
    "_crowd_game",
    "_joint_response",
    "_crowd_search",
    "_interaction",
    "_nash_game",
    "_influence",
    "_play",
    "_crowd_equilibria",
    "_concavity",
    "_problem",
    "_equilibrium",
    "_solver",
    "_newton",
    "_solve",
    "_deviation",
    "_stationarity",
    "_segment_deviation",
    "_train",
    "_certificate",
    "_design_search",
    "_design_host",
    "_design",
    "_bilevel_search",
    "_bilevel",
    "games",
    "finite",
    "market",
    "preferences",
    "study",
    "batch",
    "bench",
    "_command",
    "__main__",
)
NOT_AT_RUN_TIME = (
    "chex",
    "equinox.internal",
    "highspy",
    "hypothesis",
    "optimistix",
    "pytest",
    "scipy",
)
MOST_PUBLIC_NAMES = 80


def package_sources() -> dict[str, str]:
    """The source of every module of the package under its dotted name."""
    root = Path(diffgame.__file__).parent
    sources = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        sources[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text(
            "utf-8"
        )
    return sources


def imported(name: str, sources: Mapping[str, str]) -> set[str]:
    """All that a module imports, at its top or later, as dotted names."""
    is_package = any(other.startswith(f"{name}.") for other in sources)
    package = name if is_package else name.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(sources[name])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [base])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in ("eqx.internal",):
            names.add("equinox.internal")
    return names


def edges(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Per module the modules of the package that it imports."""

    def modules(targets: Iterable[str]) -> set[str]:
        # `diffgame.market.Market` is a name in the module `diffgame.market`.
        found = set()
        for target in targets:
            while target and target not in sources:
                target = target.rpartition(".")[0]
            found |= {target} - {""}
        return found

    return {name: modules(imported(name, sources)) for name in sources}


def layer(module: str) -> int:
    """The position of a module in LAYERS; the package itself stands above all."""
    parts = module.split(".")
    if len(parts) == 1:
        return len(LAYERS)
    assert parts[1] in LAYERS, f"{module} has no layer: enter {parts[1]!r} in LAYERS"
    return LAYERS.index(parts[1])


def upward_imports(sources: Mapping[str, str]) -> list[str]:
    levels = {module: layer(module) for module in sources}
    return [
        f"{module} imports {target}"
        for module, targets in edges(sources).items()
        for target in sorted(targets)
        if levels[target] > levels[module]
    ]


def import_cycle(sources: Mapping[str, str]) -> list[str]:
    try:
        graphlib.TopologicalSorter(edges(sources)).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def imports_for_tests_only(sources: Mapping[str, str]) -> list[str]:
    return [
        f"{module} imports {target}"
        for module in sources
        for target in sorted(imported(module, sources))
        if any(f"{target}.".startswith(f"{banned}.") for banned in NOT_AT_RUN_TIME)
    ]


def test_the_package_is_found():
    sources = package_sources()
    assert {"diffgame", "diffgame._implicit", "diffgame.market._file"} <= sources.keys()
    assert edges(sources)["diffgame.market._file"] >= {"diffgame.market._checks"}


def test_lower_layers_never_import_higher_ones():
    assert upward_imports(package_sources()) == []


def test_imports_form_no_cycle():
    assert import_cycle(package_sources()) == []


def test_run_time_needs_no_test_or_benchmark_library():
    assert imports_for_tests_only(package_sources()) == []


def test_public_names_are_few_and_explicit():
    tree = ast.parse(package_sources()["diffgame"])
    aliases = [
        alias
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom | ast.Import)
        for alias in node.names
    ]
    assert [alias.name for alias in aliases if alias.asname != alias.name] == []
    names = [alias.name for alias in aliases]
    assert len(set(names)) == len(names)
    assert 1 <= len(names) <= MOST_PUBLIC_NAMES


@pytest.mark.parametrize("name", sorted(set(vars(diffgame)) - {"__builtins__"}))
def test_public_names_are_documented(name: str):
    value = getattr(diffgame, name)
    if callable(value) and not name.startswith("_"):
        assert (value.__doc__ or "").strip(), f"diffgame.{name} has no docstring"


# The checks above pass on a healthy package, so these show that they can fail.

HEALTHY = {
    "diffgame": "from ._game import AbstractGame as AbstractGame",
    "diffgame._game": "import jax\nfrom ._policy import AbstractPolicy",
    "diffgame._policy": "",
    "diffgame.market": "from ._market import Market as Market",
    "diffgame.market._market": "from .._game import AbstractGame\nfrom . import _file",
    "diffgame.market._file": "import json",
}


def test_checks_pass_on_a_healthy_package():
    assert upward_imports(HEALTHY) == []
    assert import_cycle(HEALTHY) == []
    assert imports_for_tests_only(HEALTHY) == []


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("_game", "from .market import Market", "diffgame._game imports diffgame.market"),
        ("_game", "import diffgame.market._file", "diffgame._game imports diffgame.market._file"),
        ("_policy", "def f():\n from ._game import x", "diffgame._policy imports diffgame._game"),
        ("_policy", "from . import AbstractGame", "diffgame._policy imports diffgame"),
        ("market._file", "import diffgame", "diffgame.market._file imports diffgame"),
    ],
)
def test_upward_imports_are_found(module: str, source: str, found: str):
    assert found in upward_imports(HEALTHY | {f"diffgame.{module}": source})


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("market._file", "from ._market import Market"),
        ("market._file", "from diffgame.market import Market"),
        ("_policy", "from diffgame._game import AbstractGame"),
    ],
)
def test_cycles_are_found(module: str, source: str):
    assert import_cycle(HEALTHY | {f"diffgame.{module}": source}) != []


@pytest.mark.parametrize(
    "source",
    [
        "import scipy.optimize",
        "from scipy import optimize",
        "def f():\n import highspy",
        "import equinox.internal as eqxi",
        "from equinox import internal",
        "import equinox as eqx\neqx.internal.while_loop",
        "import optimistix",
    ],
)
def test_libraries_for_tests_are_found(source: str):
    assert imports_for_tests_only(HEALTHY | {"diffgame._policy": source}) != []


def test_a_module_without_a_layer_is_refused():
    with pytest.raises(AssertionError, match="enter '_utils' in LAYERS"):
        upward_imports(HEALTHY | {"diffgame._utils": ""})
