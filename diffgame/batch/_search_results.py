"""The results of a search: a netCDF file and a Parquet table, each written whole or not at all."""

import json
import math
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from .._terminal import write_whole
from ._checkpoint import BatchError
from ._search_axes import GAME_DATA, axes_of

FORMAT = "diffgame.search_results/1"


def _whole(path: Path, save: Callable[[Path], object]) -> None:
    try:
        write_whole(path, save)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BatchError(
            f"{path}: cannot be written ({reason}); the blocks are kept: free space or permit "
            "writing, and run again with --resume"
        ) from error


def write_search(
    path: Path,
    table: Path,
    spec: str,
    counts: Mapping[str, int],
    columns: dict[str, np.ndarray],
    rate: float = math.nan,
) -> None:
    """Both files; games and profiles go to netCDF only.

    `spec`: the text of the search's file. `rate`: games per second, NaN if nothing was computed.
    """
    import pyarrow
    import pyarrow.parquet
    import xarray

    header = {
        "format": FORMAT,
        "diffgame": version("diffgame"),
        "jax": version("jax"),
        "statuses": json.dumps(counts),
        "spec": spec,
        "games_per_second": str(rate),
    }
    flat: dict[str, np.ndarray] = {"game": np.arange(len(columns["status"]))}
    data = {}
    for name, values in columns.items():
        axes = ("game", *axes_of(name, values.ndim))
        # netCDF by way of HDF5 has no plain booleans.
        data[name] = (axes, values.astype(np.int8) if values.dtype == bool else values)
        if name in GAME_DATA or name.startswith("profile."):
            continue
        if values.ndim == 1:
            flat[name] = values
        else:
            flat |= {f"{name}_{number}": values[:, number] for number in range(values.shape[1])}
    dataset = xarray.Dataset(data, attrs=header)
    _whole(path, lambda partial: dataset.to_netcdf(partial, engine="h5netcdf"))
    rows = pyarrow.table(flat).replace_schema_metadata(header)
    _whole(table, lambda partial: pyarrow.parquet.write_table(rows, partial))


def read_results(path: Path) -> tuple[dict[str, str], dict[str, np.ndarray]]:
    """The header and the columns of a results file.

    **Errors:** BatchError in one line for what is no results file or is cut short.
    """
    import xarray

    advice = "name the OUT.nc of diffgame search"
    if not path.is_file():
        raise BatchError(f"{path}: there is no such file; {advice}")
    try:
        with xarray.open_dataset(path, engine="h5netcdf") as file:
            header = {name: str(value) for name, value in file.attrs.items()}
            columns = {str(name): file[name].values for name in file.data_vars}
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise BatchError(
            f"{path}: cannot be read as results, it may be cut short; {advice}"
        ) from error
    if header.get("format") != FORMAT:
        found = header.get("format", "no format")
        raise BatchError(f"{path}: has {found!r} where {FORMAT!r} is needed; {advice}")
    missing = [name for name in ("spec", "statuses") if name not in header]
    missing += [name for name in ("status", "certified") if name not in columns]
    if missing:
        raise BatchError(f"{path}: has no {missing[0]!r}, it may be cut short; {advice}")
    return header, columns
