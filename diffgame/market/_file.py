"""The file format `diffgame.market/1`: a market of providers and users as one JSON document."""

import dataclasses
import difflib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import _checks as checks
from ._checks import MarketFileError as MarketFileError
from ._market_file import MarketFile as MarketFile
from ._private import PrivateInformation, read_protocol

FORMAT = "diffgame.market/1"


def read_market(path: str | os.PathLike[str]) -> MarketFile:
    """Read a `diffgame.market/1` file. Every float64 is read as it was written, bit for bit.

    Args:
        path: the file, JSON in UTF-8.

    Raises:
        MarketFileError: one line with file, field and remedy, for whatever is wrong with the file,
            from "no such file" to a prior that does not sum to 1.

    Example:
        >>> read_market("no/such/market.json")
        Traceback (most recent call last):
        ...
        diffgame.market._checks.MarketFileError: no/such/market.json: no such file; check the path
    """
    try:
        return _parse(_load(path))
    except MarketFileError as error:
        raise MarketFileError(error.field, error.problem, error.remedy, os.fspath(path)) from None


def write_market(path: str | os.PathLike[str], market: MarketFile) -> None:
    """Write a market so that `read_market` gives back the same names and the same float64 numbers.

    The file appears complete or not at all: it is written beside `path` and then moved there.

    Args:
        path: the file to write; one that exists is replaced.
        market: what to write.

    Raises:
        MarketFileError: the file cannot be written there.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> alone = MarketFile(
        ...     name="One of each", states=("s",), actions=("a",), users=("u",), providers=("p",),
        ...     segments=(None,), prior=np.ones(1), utility=np.full((1, 1, 1), 0.1),
        ...     objective=np.zeros((1, 1, 1, 1)), mass=np.ones(1),
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_market(Path(folder) / "market.json", alone)
        ...     read_market(Path(folder) / "market.json").utility
        array([[[0.1]]])
    """
    target = Path(os.path.realpath(path))
    partial = target.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        try:
            with partial.open("x", encoding="utf-8", newline="\n") as stream:
                stream.write(_render(_document(market)) + "\n")
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise MarketFileError(
            "",
            f"cannot be written ({error.strerror})",
            "check the folder, its permissions and the space left",
            os.fspath(path),
        ) from error


class _Object(dict[str, Any]):
    """A JSON object that remembers a key given twice, which a dict would forget."""

    repeated: str | None = None


def _object(pairs: list[tuple[str, Any]]) -> _Object:
    result = _Object(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        result.repeated = next(key for k, key in enumerate(keys) if key in keys[:k])
    return result


def _load(path: str | os.PathLike[str]) -> Any:
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise MarketFileError("", "no such file", "check the path") from None
    except IsADirectoryError:
        raise MarketFileError("", "is a directory", "name a market file in it") from None
    except UnicodeDecodeError as error:
        raise MarketFileError(
            f"byte {error.start}", "is not UTF-8", "save the file as JSON in UTF-8"
        ) from None
    except OSError as error:
        raise MarketFileError(
            "", f"cannot be read ({error.strerror})", "check the file and its permissions"
        ) from None
    except ValueError as error:
        raise MarketFileError("", f"is no path ({error})", "check the path") from None
    if not text.strip():
        raise MarketFileError("", "is empty", f'write a JSON object with "format": "{FORMAT}"')
    try:
        # All numbers become floats, as NumPy will hold them; one too large becomes infinite.
        return json.loads(text, parse_int=float, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise MarketFileError(
            f"line {error.lineno}, column {error.colno}",
            f"is not JSON ({error.msg})",
            "correct the file there",
        ) from None
    except RecursionError:
        raise MarketFileError(
            "", "is nested too deeply", f"write the object that {FORMAT} describes"
        ) from None


def _fields(
    value: Any, field: str, who: str, required: Sequence[str], optional: Sequence[str] = ()
) -> Mapping[str, Any]:
    """A JSON object with all required fields, none unknown and none given twice."""
    if not isinstance(value, _Object):
        here = checks.located(field or "the top level", who)
        remedy = f"give an object with the fields {', '.join(required)}"
        raise MarketFileError(here, f"is {checks.shown(value)}", remedy)

    def place(key: str) -> str:
        return checks.located(f"{field}.{key}" if field else key, who)

    if value.repeated is not None:
        raise MarketFileError(place(value.repeated), "is given twice", "keep one of the two")
    known = [*required, *optional]
    for key in value:
        if key not in known:
            raise MarketFileError(place(key), "is an unknown field", _suggestion(key, known))
    for key in required:
        if key not in value:
            raise MarketFileError(place(key), "is missing", "add it")
    return value


def _suggestion(key: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"choose from {checks.shown_names(known)}"


def _objects(
    value: Any, field: str, kind: str, required: Sequence[str], optional: Sequence[str] = ()
) -> list[Mapping[str, Any]]:
    if not isinstance(value, list):
        raise MarketFileError(field, f"is {checks.shown(value)}", f"give a list of {kind}s")
    return [
        _fields(entry, f"{field}[{k}]", _who(entry, kind), required, optional)
        for k, entry in enumerate(value)
    ]


def _who(value: Any, kind: str) -> str:
    """The name of an object whose fields are still to be checked, if it has one."""
    name = value.get("name") if isinstance(value, _Object) else None
    return f"{kind} {name!r}" if isinstance(name, str) else ""


def _parse(document: Any) -> MarketFile:
    if isinstance(document, _Object) and document.get("format", FORMAT) != FORMAT:
        # Told first: whatever else differs may follow from the format.
        raise MarketFileError(
            "format", f"is {checks.shown(document['format'])}", f'this version reads "{FORMAT}"'
        )
    required = ("format", "name", "states", "prior", "actions", "users", "providers")
    market = _fields(document, "", "", required, ("conversation",))
    optional = ("mass", "segment", "private")
    users = _objects(market["users"], "users", "user", ("name", "utility"), optional)
    providers = _objects(market["providers"], "providers", "provider", ("name", "objective"))
    _refuse_null(market, "conversation", "conversation")
    for j, user in enumerate(users):
        for field in ("segment", "private"):
            place = checks.located(f"users[{j}].{field}", _who(user, "user"))
            _refuse_null(user, field, place)
    names = checks.unique_names([user["name"] for user in users], "users", "user")
    private = [_private(user, f"users[{j}].private") for j, user in enumerate(users)]
    protocol = None
    if "conversation" in market:
        numbers = ("rounds", "user_messages", "provider_messages")
        protocol = read_protocol(_fields(market["conversation"], "conversation", "", numbers))
    return MarketFile(
        name=market["name"],
        states=market["states"],
        actions=market["actions"],
        users=names,
        providers=[provider["name"] for provider in providers],
        segments=[user.get("segment") for user in users],
        prior=market["prior"],
        utility=[user["utility"] for user in users],
        objective=[
            _objective_tables(provider, f"providers[{i}].objective", names, private)
            for i, provider in enumerate(providers)
        ],
        mass=[user.get("mass", 1.0) for user in users],
        private=private,
        conversation=protocol,
    )


def _refuse_null(owner: Mapping[str, Any], field: str, place: str) -> None:
    if field in owner and owner[field] is None:
        raise MarketFileError(place, "is null", "leave the field out")


def _private(user: Mapping[str, Any], field: str) -> PrivateInformation | None:
    if "private" not in user:
        return None
    given = _fields(user["private"], field, _who(user, "user"), ("values", "likelihood"))
    return PrivateInformation(given["values"], given["likelihood"])


def _objective_tables(
    provider: Mapping[str, Any],
    field: str,
    users: Sequence[str],
    private: Sequence[PrivateInformation | None],
) -> list[Any]:
    """One table per user, from a table for all or an object from user name to table.

    A user with private information has a list of tables, so that none can be shared.
    """
    objective, place = provider["objective"], checks.located(field, _who(provider, "provider"))
    if isinstance(objective, list):
        for user, own in zip(users, private, strict=True):
            if own is not None:
                raise MarketFileError(
                    place,
                    f"is one table for all users, but user {user!r} has private information",
                    "give an object from user name to table, and for her a list of tables, one "
                    "per private value",
                )
        return [objective] * len(users)
    if not isinstance(objective, _Object):
        remedy = "give a table, or an object from user name to table"
        raise MarketFileError(place, f"is {checks.shown(objective)}", remedy)
    if objective.repeated is not None:
        problem = f"names user {objective.repeated!r} twice"
        raise MarketFileError(place, problem, "keep one of the two")
    for user in objective:
        if user not in users:
            problem = f"names {user!r}, which is no user"
            raise MarketFileError(place, problem, _suggestion(user, users))
    for user in users:
        if user not in objective:
            problem = f"has no table for user {user!r}"
            raise MarketFileError(place, problem, "add it, or give one table for all users")
    return [objective[user] for user in users]


def _document(market: MarketFile) -> dict[str, Any]:
    users = []
    for j, name in enumerate(market.users):
        user: dict[str, Any] = {"name": name, "mass": float(market.mass[j])}
        if market.segments[j] is not None:
            user["segment"] = market.segments[j]
        own = market.private[j]
        if own is not None:
            user["private"] = {"values": list(own.values), "likelihood": own.likelihood.tolist()}
        users.append(user | {"utility": market.utility[j].tolist()})
    talk = market.conversation
    conversation = {} if talk is None else {"conversation": dataclasses.asdict(talk)}
    sharable = all(own is None for own in market.private)
    providers = []
    for name, tables in zip(market.providers, market.objective, strict=True):
        # Bytes, because 0.0 == -0.0 and both must survive.
        shared = sharable and all(table.tobytes() == tables[0].tobytes() for table in tables)
        by_user = {user: table.tolist() for user, table in zip(market.users, tables, strict=True)}
        providers.append({"name": name, "objective": tables[0].tolist() if shared else by_user})
    return {
        "format": FORMAT,
        "name": market.name,
        "states": list(market.states),
        "prior": market.prior.tolist(),
        "actions": list(market.actions),
        **conversation,
        "users": users,
        "providers": providers,
    }


def _render(value: Any, indent: str = "") -> str:
    """JSON with one table row per line, for people to read and for diffs."""
    inner = indent + "  "
    if isinstance(value, dict):
        lines = [
            f"{inner}{json.dumps(key, ensure_ascii=False)}: {_render(entry, inner)}"
            for key, entry in value.items()
        ]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(entry, list | dict) for entry in value):
        lines = [inner + _render(entry, inner) for entry in value]
        return "[\n" + ",\n".join(lines) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
