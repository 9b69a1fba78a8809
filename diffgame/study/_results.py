"""The results file of a study: a netCDF group of rows per section, written whole or not at all."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from .._terminal import write_whole
from ._section import Row, StudySettings

FORMAT = "diffgame.study/1"


class StudyFileError(ValueError):
    """A results file that cannot be used; the message says why and what to do."""


def _header(settings: StudySettings) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "diffgame": version("diffgame"),
        "jax": version("jax"),
        "seed": settings.seed,
        "scale": settings.scale,
    }


def _dataset(rows: Sequence[Row]):
    import xarray

    columns = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        text = any(isinstance(value, str) for value in values)
        columns[name] = ("row", np.array(values, dtype=object if text else None))
    return xarray.Dataset(columns)


def _rows(dataset) -> list[Row]:
    names = list(dataset.data_vars)
    columns = {name: dataset[name].values.tolist() for name in names}
    return [{name: columns[name][n] for name in names} for n in range(dataset.sizes.get("row", 0))]


def write_results(
    path: Path, settings: StudySettings, sections: Mapping[str, Sequence[Row]]
) -> None:
    """Write all sections that are done; the file is replaced in one step."""
    import xarray

    header = _header(settings) | {"sections": json.dumps(list(sections))}

    def save(partial: Path) -> None:
        xarray.Dataset(attrs=header).to_netcdf(partial, engine="h5netcdf")
        for name, rows in sections.items():
            _dataset(rows).to_netcdf(partial, mode="a", group=name, engine="h5netcdf")

    write_whole(path, save)


def read_results(path: Path) -> tuple[dict[str, Any], dict[str, list[Row]]]:
    """The header and the sections of a results file.

    **Errors:** StudyFileError, in one line, for what is no results file, is cut short or comes
    from another version.
    """
    import xarray

    advice = "remove it or name another output"
    try:
        with xarray.open_dataset(path, engine="h5netcdf") as top:
            header = dict(top.attrs)
        if header.get("format") != FORMAT:
            raise StudyFileError(f"{path}: is no results file of a study ({FORMAT}); {advice}")
        sections = {}
        for name in json.loads(header["sections"]):
            with xarray.open_dataset(path, engine="h5netcdf", group=name) as group:
                sections[name] = _rows(group)
    except StudyFileError:
        raise
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise StudyFileError(
            f"{path}: cannot be read as results, it may be cut short; {advice}"
        ) from error
    return header, sections


def resume_results(path: Path, settings: StudySettings) -> dict[str, list[Row]]:
    """The sections that an earlier run with the same settings and version finished."""
    if not path.exists():
        return {}
    header, sections = read_results(path)
    for name, wanted in _header(settings).items():
        if header.get(name) != wanted:
            raise StudyFileError(
                f"{path}: was made with {name} {header.get(name)}, not {wanted}; name another "
                "output or remove it"
            )
    return sections
