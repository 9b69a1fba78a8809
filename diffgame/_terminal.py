"""What the commands share: refusals in one line, files written whole, progress, the compiler."""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any


class Refused(Exception):
    """Bad input or usage, told in one line."""


def write_whole(path: Path, save: Callable[[Path], object]) -> None:
    """Let `save` write a file beside this one and rename it: complete or not at all.

    **Errors:** OSError as it comes.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        save(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write the file complete or not at all."""
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    try:
        write_whole(path, lambda partial: partial.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise Refused(f"--json {path}: cannot be written ({error.strerror})") from error


def check_output(option: str, path: Path) -> None:
    """Refuse, before minutes of work and not after them, a file that cannot be written."""
    if path.is_dir():
        raise Refused(f"{option} {path}: is a directory; name a file")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise Refused(
            f"{option} {path}: the folder does not exist or is not writable; make it first"
        )


def show_progress() -> tuple[Callable[[str], None], Callable[[], None]]:
    """A live line on a terminal, one line per stage elsewhere; both on standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        status = console.status("starting")
        status.start()
        return lambda text: status.update(text), status.stop
    return lambda text: print(f"diffgame: {text}", file=sys.stderr, flush=True), lambda: None


def prepare_compiler() -> None:
    """Compile less: before the first computation, as most of a short run is compilation.

    The new fusion emitters of jaxlib 0.10 take three quarters of the time; later versions do not
    know the switch. What was compiled once is kept for the next run.
    """
    import jax

    from ._stored_program import keep_programs

    flags, switch = os.environ.get("XLA_FLAGS", ""), "xla_cpu_use_fusion_emitters"
    if version("jaxlib").startswith("0.10.") and switch not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{switch}=false".strip()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "diffgame", "jax"))
    keep_programs(Path(home, "diffgame", "programs"))
    jax.config.update("jax_enable_x64", True)
