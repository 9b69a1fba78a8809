"""Finished blocks on disk: one file each, whole or absent, and the settings that made them."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

import numpy as np

FORMAT = "diffgame.batch/1"
_SETTINGS = "settings.json"


class BatchError(ValueError):
    """A batch that cannot run or a checkpoint that cannot be used; one line says why."""


def write_whole(path: Path, save: Callable[[IO[bytes]], object], *, sync: bool = True) -> None:
    """Write beside the file and rename: whoever is killed leaves the old file or the new one.

    `sync`: whether it also outlives a loss of power.
    """
    # The process in the name: two of them may write the same file.
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            with partial.open("wb") as file:
                save(file)
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise BatchError(
            f"{path}: cannot be written ({error.strerror}); finished blocks are kept: free "
            "space or permit writing, and run again"
        ) from error


class Checkpoint:
    """A folder of finished blocks that all come from the same settings and versions."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self._folder = folder
        wanted = {
            "format": FORMAT,
            "diffgame": version("diffgame"),
            "jax": version("jax"),
            **settings,
        }
        text = json.dumps(wanted, indent=1, sort_keys=True)
        self._stamp = hashlib.sha256(text.encode()).hexdigest()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BatchError(
                f"{folder}: cannot be made a folder ({error.strerror}); name another"
            ) from error
        path = folder / _SETTINGS
        if path.exists():
            _compare(path, json.loads(text))
        elif any(folder.glob("block-*.npz")):
            raise BatchError(f"{path}: is missing; name another folder or remove this one")
        else:
            write_whole(path, lambda file: file.write(text.encode()))

    def _path(self, first: int, stop: int) -> Path:
        return self._folder / f"block-{first:012d}-{stop:012d}.npz"

    def finished(self) -> set[tuple[int, int]]:
        """First game and the one after the last of every finished block."""
        names = [path.stem.split("-") for path in self._folder.glob("block-*.npz")]
        return {(int(first), int(stop)) for _, first, stop in names}

    def read(self, first: int, stop: int) -> dict[str, np.ndarray]:
        """A finished block.

        **Errors:** BatchError for a file that is cut short or of another run.
        """
        path = self._path(first, stop)
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                block = {name: file[name] for name in file.files}
            stamp = str(block.pop("stamp"))
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise BatchError(
                f"{path}: is cut short or damaged; delete it, and its games are solved again"
            ) from error
        if stamp != self._stamp:
            raise BatchError(
                f"{path}: was made with other settings or versions; delete it, and its games are "
                "solved again"
            )
        return block

    def write(self, first: int, stop: int, block: Mapping[str, np.ndarray]) -> None:
        """Keep a finished block."""
        whole: dict[str, Any] = {**block, "stamp": np.array(self._stamp)}
        write_whole(self._path(first, stop), lambda file: np.savez(file, **whole))


def _compare(path: Path, wanted: dict[str, Any]) -> None:
    advice = "name another folder or remove this one"
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BatchError(f"{path}: cannot be read, it may be cut short; {advice}") from error
    if not isinstance(found, dict):
        raise BatchError(f"{path}: is no checkpoint of a batch ({FORMAT}); {advice}")
    for name in sorted(wanted.keys() | found.keys()):
        if found.get(name) != wanted.get(name):
            raise BatchError(
                f"{path}: was made with {name} = {found.get(name)}, not {wanted.get(name)}; "
                f"{advice}"
            )
