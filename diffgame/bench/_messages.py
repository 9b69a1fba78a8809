"""Plain arrays between the bench and a solver's process, and the loop of such a process.

Needs the standard library and numpy only, so that an interpreter without diffgame can run it
(`_gambit.py`).
"""

import io
import json
import os
import queue
import struct
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import numpy as np

_LENGTHS = struct.Struct(">QQ")
Message = tuple[dict[str, Any], dict[str, np.ndarray]]


def write_message(
    stream: BinaryIO, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]
) -> None:
    """One message: a JSON header and arrays as .npz, each behind its length.

    **Errors:** TypeError for values that are no arrays of numbers.
    """
    packed, values = io.BytesIO(), [np.asarray(value) for value in arrays.values()]
    for name, value in zip(arrays, values, strict=True):
        if value.dtype.hasobject:
            raise TypeError(f"{name!r} is no array of numbers")
    np.savez(packed, *values)
    text, data = json.dumps([header, list(arrays)]).encode(), packed.getvalue()
    stream.write(_LENGTHS.pack(len(text), len(data)) + text + data)
    stream.flush()


def read_message(stream: BinaryIO) -> Message | None:
    """The next message, or None where the stream ends, within a message included."""
    lengths = stream.read(_LENGTHS.size)
    if len(lengths) < _LENGTHS.size:
        return None
    text_length, data_length = _LENGTHS.unpack(lengths)
    text, data = stream.read(text_length), stream.read(data_length)
    if len(data) < data_length:
        return None
    header, names = json.loads(text)
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return header, {name: arrays[f"arr_{place}"] for place, name in enumerate(names)}


def one_line(error: BaseException) -> str:
    """The kind of an error and the first line that it has to say."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])


def _listen(stream: BinaryIO, requests: "queue.SimpleQueue[Message]") -> None:
    while True:
        message = read_message(stream)
        if message is None:
            # The bench has ended: whatever the solver is busy with, nobody waits for it.
            os._exit(0)
        requests.put(message)


def serve(make: Callable[[dict[str, Any]], Callable[[dict[str, np.ndarray]], Any]]) -> None:
    """Solve what comes on standard input until it ends.

    The first message's header goes to `make`; the later ones' arrays to the function it returned.
    """
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What a solver prints must not end up among the answers, nor may it read the questions.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    requests: queue.SimpleQueue[Message] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions, requests), daemon=True).start()
    setup, _ = requests.get()
    try:
        solve = make(setup)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        write_message(answers, {"error": one_line(error)}, {})
        return
    write_message(answers, {}, {})
    while True:
        _, game = requests.get()
        found: dict[str, np.ndarray] = {}
        header = {}
        wall, processor = time.perf_counter(), time.process_time()
        try:
            found = solve(game)
        except (Exception, SystemExit) as error:
            traceback.print_exc()
            header["error"] = one_line(error)
        header["seconds"] = time.perf_counter() - wall
        header["cpu_seconds"] = time.process_time() - processor
        try:
            write_message(answers, header, found)
        except (ValueError, TypeError, AttributeError) as error:
            header["error"] = f"its answer is not plain arrays by name: {one_line(error)}"
            write_message(answers, header, {})
