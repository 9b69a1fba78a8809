"""The results of a search: a netCDF file and a Parquet table, each written whole or not at all."""

import json
import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np

from ._checkpoint import BatchError

FORMAT = "diffgame.search_results/1"
_PER_PROVIDER = ("payoffs",)


def _axis(name: str) -> str:
    return "provider" if name in _PER_PROVIDER else "user"


def _whole(path: Path, save: Callable[[Path], object]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            save(partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise BatchError(
            f"{path}: cannot be written ({reason}); the blocks are kept: free space or permit "
            "writing, and run again with --resume"
        ) from error


def write_search(
    path: Path, table: Path, spec: str, counts: Mapping[str, int], columns: dict[str, np.ndarray]
) -> None:
    """Both files: dimensions game, user, provider; `spec` is the text of the search's file."""
    import pyarrow
    import pyarrow.parquet
    import xarray

    header = {
        "format": FORMAT,
        "diffgame": version("diffgame"),
        "jax": version("jax"),
        "statuses": json.dumps(counts),
        "spec": spec,
    }
    flat: dict[str, np.ndarray] = {"game": np.arange(len(columns["status"]))}
    data = {}
    for name, values in columns.items():
        axes = ("game",) if values.ndim == 1 else ("game", _axis(name))
        # netCDF by way of HDF5 has no plain booleans.
        data[name] = (axes, values.astype(np.int8) if values.dtype == bool else values)
        if values.ndim == 1:
            flat[name] = values
        else:
            flat |= {f"{name}_{number}": values[:, number] for number in range(values.shape[1])}
    dataset = xarray.Dataset(data, attrs=header)
    _whole(path, lambda partial: dataset.to_netcdf(partial, engine="h5netcdf"))
    rows = pyarrow.table(flat).replace_schema_metadata(header)
    _whole(table, lambda partial: pyarrow.parquet.write_table(rows, partial))
