"""Programs that outlive their process: compiled once per shape, loaded by later runs."""

import concurrent.futures
import contextlib
import functools
import hashlib
import math
import os
import pickle
import secrets
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.core
from jax.experimental import serialize_executable

FORMAT = b"diffgame.program/1\n"
# While one program is traced, which takes Python's lock, another is compiled.
WORKERS = 2
_MOST_BYTES = 1_000_000_000
_PACKAGES = ("diffgame", "equinox", "jax", "jaxlib", "numpy", "optax")
# With the newer emitters LLVM needs twice the time for code that is no faster. Later versions of
# XLA have no others.
_EMITTERS: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}
# Programs whose arguments are not larger, in numbers, run for milliseconds: optimising them takes
# seconds and saves less.
_SMALL = 4096
_UNOPTIMISED: dict[str, Any] = {"xla_backend_optimization_level": 0}
_folder: Path | None = None


def keep_programs(folder: Path) -> None:
    """From now on, functions made by `stored_jit` keep their compiled programs in this folder.

    Whoever can write there decides what runs: a program is machine code. A folder that cannot be
    written costs time and nothing else.
    """
    global _folder
    _folder = folder


@functools.cache
def _environment() -> bytes:
    """All that a program depends on, apart from the function and its arguments."""
    digest = hashlib.sha256()
    package = Path(__file__).parent
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package)}\n".encode())
        digest.update(path.read_bytes())
    processor = Path("/proc/cpuinfo")
    if processor.exists():
        lines = processor.read_text().splitlines()
        digest.update("\n".join(sorted({x for x in lines if x.startswith("flags")})).encode())
    device = jax.devices()[0]
    settings = jax.config.values.items()
    for part in (
        *(f"{name} {version(name)}" for name in _PACKAGES),
        os.environ.get("XLA_FLAGS", ""),
        f"{device.platform} {device.device_kind} {device.client.platform_version}",
        f"{jax.device_count()} devices",
        *(f"{name}={value}" for name, value in sorted(settings) if "cache" not in name),
    ):
        digest.update(f"{part}\n".encode())
    return digest.digest()


def _is_dynamic(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


def _describe(leaf: Any) -> str:
    if not _is_dynamic(leaf):
        return repr(leaf)
    return f"{leaf.dtype}{leaf.shape}{getattr(leaf, 'weak_type', False)}"


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    weak = getattr(leaf, "weak_type", False)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=weak)


class _Program:
    """One compiled program, from lists of arrays to lists of arrays.

    `skeleton` is the result with the place of every array in its stead; other leaves are what they
    are.
    """

    def __init__(self, compiled: Callable, skeleton: Any):
        self._compiled = compiled
        self._places, self._tree = jax.tree.flatten(skeleton, is_leaf=_is_place)

    def __call__(self, arrays: list[Any]) -> Any:
        found = self._compiled(arrays)
        leaves = [found[x.number] if _is_place(x) else x for x in self._places]
        return jax.tree.unflatten(self._tree, leaves)


class _Place:
    """Where an array of the result is found."""

    def __init__(self, number: int):
        self.number = number


def _is_place(leaf: Any) -> bool:
    return isinstance(leaf, _Place)


def _flatten(leaves: list[Any]) -> tuple[list[Any], list[Any]]:
    """The arrays, and all leaves with a place for each array."""
    arrays = [leaf for leaf in leaves if _is_dynamic(leaf)]
    numbers = iter(range(len(arrays)))
    return arrays, [_Place(next(numbers)) if _is_dynamic(leaf) else leaf for leaf in leaves]


@functools.cache
def _can_choose_emitters() -> bool:
    """Whether this version of XLA has the option; only compiling with it tells."""
    lowered = jax.jit(lambda x: x).lower(jax.ShapeDtypeStruct((), float))
    try:
        lowered.compile(compiler_options=_EMITTERS)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return False
    return True


def _options(arrays: list[Any], long: bool) -> dict[str, Any]:
    """Of the compiler."""
    if jax.default_backend() != "cpu":
        return {}
    small = sum(math.prod(array.shape) for array in arrays) <= _SMALL
    emitters = _EMITTERS if _can_choose_emitters() else {}
    return emitters | (_UNOPTIMISED if small and not long else {})


def _compile(
    function: Callable, tree: Any, places: list[Any], arrays: list[Any], options: dict[str, Any]
):
    skeletons = []

    def flat(arrays: list[Any]) -> list[Any]:
        leaves = [arrays[x.number] if _is_place(x) else x for x in places]
        args, kwargs = jax.tree.unflatten(tree, leaves)
        found, structure = jax.tree.flatten(function(*args, **kwargs))
        outputs, kept = _flatten(found)
        skeletons.append(jax.tree.unflatten(structure, kept))
        return outputs

    # JAX's own cache, where one is set, must not answer: a program that was loaded from there loses
    # its code when it is stored again. It asks by name, so the name is a new one each time.
    flat.__name__ = f"{function.__name__}_{secrets.token_hex(8)}"
    lowered = jax.jit(flat).lower([_abstract(array) for array in arrays])
    compiled = lowered.compile(compiler_options=options)
    _forget(flat.__name__)
    return compiled, skeletons[-1]


def _forget(name: str) -> None:
    """Remove from JAX's own cache what will never be asked for again."""
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is not None:
        with contextlib.suppress(OSError):
            for path in Path(folder).glob(f"jit_{name}-*"):
                path.unlink(missing_ok=True)


def _save(path: Path, compiled: Any, skeleton: Any) -> None:
    payload, _, _ = serialize_executable.serialize(compiled)
    body = pickle.dumps((payload, skeleton))
    text = FORMAT + hashlib.sha256(body).digest() + body
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(text)
        os.replace(partial, path)
        _discard(path.parent)
    except OSError:
        # A cache that cannot be written (full, read-only, no home) is no fault of the run.
        with contextlib.suppress(OSError):
            partial.unlink()


def _discard(folder: Path) -> None:
    """Remove the programs that were not used for longest until the folder is small enough."""
    used = sorted((path.stat().st_mtime, path.stat().st_size, path) for path in folder.iterdir())
    size = sum(bytes_ for _, bytes_, _ in used)
    for _, bytes_, path in used:
        if size <= _MOST_BYTES:
            break
        path.unlink(missing_ok=True)
        size -= bytes_


def _load(path: Path, arrays: list[Any]) -> tuple[Any, Any] | None:
    """The program of that file; None if it is not there, cut short or of another format."""
    try:
        text = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    start = len(FORMAT) + hashlib.sha256().digest_size
    head, body = text[:start], text[start:]
    if head != FORMAT + hashlib.sha256(body).digest():
        return None
    payload, skeleton = pickle.loads(body)
    places = jax.tree.leaves(skeleton, is_leaf=_is_place)
    inward = jax.tree.structure((([0] * len(arrays),), {}))
    outward = jax.tree.structure([0] * sum(map(_is_place, places)))
    return serialize_executable.deserialize_and_load(payload, inward, outward), skeleton


class StoredFunction:
    """A jitted function; see `stored_jit`."""

    def __init__(self, function: Callable, long: bool):
        functools.update_wrapper(self, function)
        self._long = long
        self._function = function
        self._jitted = eqx.filter_jit(function)
        self._programs: dict[str, concurrent.futures.Future[_Program]] = {}

    def _key(self, tree: Any, leaves: list[Any]) -> str:
        name = f"{self._function.__module__}.{self._function.__qualname__}"
        digest = hashlib.sha256(_environment())
        options = _options(_flatten(leaves)[0], self._long)
        for part in (name, repr(options), str(tree), *map(_describe, leaves)):
            digest.update(f"{part}\n".encode())
        return digest.hexdigest()

    def _path(self, folder: Path, key: str) -> Path:
        return folder / f"{self._function.__name__}-{key[:32]}"

    def _find(self, folder: Path, key: str, tree: Any, leaves: list[Any]) -> _Program:
        arrays, places = _flatten(leaves)
        path = self._path(folder, key)
        found = _load(path, arrays)
        if found is None:
            found = _compile(self._function, tree, places, arrays, _options(arrays, self._long))
            _save(path, *found)
        return _Program(*found)

    def _program(self, key: str, tree: Any, leaves: list[Any], start: Callable) -> Any:
        assert _folder is not None
        if key not in self._programs or self._programs[key].cancelled():
            self._programs[key] = start(self._find, _folder, key, tree, leaves)
        return self._programs[key]

    def prepare(self, *args: Any, **kwargs: Any) -> bool:
        """Load or compile in the background what a call with such arguments will run.

        Arrays may be `jax.ShapeDtypeStruct`. Without a folder this does nothing.

        **Returns:** whether no earlier run has left the program, so that it must be compiled.
        """
        if _folder is None:
            return False
        leaves, tree = jax.tree.flatten((args, kwargs))
        key = self._key(tree, leaves)
        is_new = not self._path(_folder, key).exists()
        self._program(key, tree, leaves, _background().submit)
        return is_new

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        if _folder is None or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self._jitted(*args, **kwargs)
        program = self._program(self._key(tree, leaves), tree, leaves, _at_once).result()
        arrays, _ = _flatten(leaves)
        return program(arrays)


@functools.cache
def _background() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(WORKERS)


def stop_preparing() -> None:
    """Drop what was prepared and has not begun: an interrupted command need not wait for it."""
    _background().shutdown(wait=False, cancel_futures=True)
    _background.cache_clear()


def _at_once(function: Callable, *args: Any) -> concurrent.futures.Future:
    future = concurrent.futures.Future()
    future.set_result(function(*args))
    return future


def stored_jit(function: Callable, *, long: bool = False) -> StoredFunction:
    """Like `eqx.filter_jit`, for functions that a command calls once per run.

    After `keep_programs`, a program is kept in that folder as machine code, so that a later run
    with arguments of the same shapes neither traces nor compiles. The key is the function, shapes
    and static arguments, all of diffgame's sources, the versions of the packages, JAX's settings
    and the processor: what differs in any of them is compiled anew. Inside of other traced
    functions, and without a folder, it is `eqx.filter_jit`. Differentiate inside, not through it.

    A kept program is not optimised where its arguments are small, unless it runs `long` all the
    same: thousands of steps in a row.
    """
    return StoredFunction(function, long)
