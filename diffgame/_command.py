"""The command `diffgame`."""

import argparse
import io
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

_EXAMPLES = """examples:
  diffgame audit examples/markets/opposed_users.json
  diffgame audit market.json --json audit.json --starts 128 --seed 1
  diffgame audit market.json --modes personalized --tolerance 1e-7

exit status:
  0  every reported equilibrium is certified
  1  a fault of diffgame itself
  2  bad input or usage
  3  some reported equilibrium is not certified (its status says what is known)
"""


class _Refused(Exception):
    """Bad input or usage, told in one line."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="diffgame",
        description="Differentiable leader-follower games with certified equilibria.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"diffgame {version('diffgame')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    audit = commands.add_parser(
        "audit",
        help="find and certify the equilibria of a market",
        description="Read a market (diffgame.market/1), find equilibria with personalized\n"
        "and with anonymous policies, certify them, and say what personalization\n"
        "does for users.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    audit.add_argument("file", metavar="FILE", help="the market, JSON")
    audit.add_argument("--json", metavar="OUT", help="also write everything to this file, as JSON")
    audit.add_argument("--starts", type=int, default=64, help="random starts (default 64)")
    audit.add_argument("--seed", type=int, default=0, help="of the random starts (default 0)")
    audit.add_argument(
        "--modes",
        default="personalized,anonymous",
        help="comma-separated (default personalized,anonymous)",
    )
    audit.add_argument(
        "--tolerance",
        type=float,
        default=1e-6,
        help="gain from deviating that counts as none, as a share of the provider's range of "
        "payoffs (default 1e-6)",
    )
    return parser


def _write(path: Path, report: dict[str, Any]) -> None:
    """Write the file complete or not at all."""
    text = json.dumps(report, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise _Refused(f"--json {path}: cannot be written ({error.strerror})") from error


def _check_output(path: Path) -> None:
    # Told before minutes of work, not after them.
    if path.is_dir():
        raise _Refused(f"--json {path}: is a directory; name a file")
    if not (path.parent.is_dir() and os.access(path.parent, os.W_OK)):
        raise _Refused(
            f"--json {path}: the folder does not exist or is not writable; make it first"
        )


def _progress(quiet: bool) -> tuple[Callable[[str], None], Callable[[], None]]:
    """A live line on a terminal, one line per stage elsewhere; both on standard error."""
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal and not quiet:
        status = console.status("starting")
        status.start()
        return lambda text: status.update(text), status.stop
    return lambda text: print(f"diffgame: {text}", file=sys.stderr, flush=True), lambda: None


def _prepare_compiler() -> None:
    """Compile less: before the first computation, as most of a short run is compilation.

    The new fusion emitters of jaxlib 0.10 take three quarters of the time; later versions do not
    know the switch. What was compiled once is kept for the next run.
    """
    import jax

    flags, switch = os.environ.get("XLA_FLAGS", ""), "xla_cpu_use_fusion_emitters"
    if version("jaxlib").startswith("0.10.") and switch not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --{switch}=false".strip()
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        jax.config.update("jax_compilation_cache_dir", os.path.join(home, "diffgame", "jax"))
    jax.config.update("jax_enable_x64", True)


def _audit(options: argparse.Namespace) -> int:
    from .market import AuditSettings, MarketFileError, read_market

    modes = tuple(mode.strip() for mode in options.modes.split(","))
    try:
        settings = AuditSettings(options.starts, options.seed, modes, options.tolerance)
    except ValueError as error:
        raise _Refused(f"--{error}") from None
    target = None if options.json is None else Path(options.json)
    if target is not None:
        _check_output(target)
    try:
        file = read_market(options.file)
    except MarketFileError as error:
        raise _Refused(str(error)) from None

    import jax
    from rich.console import Console

    from .market import audit_market, print_report

    _prepare_compiler()
    progress, stop = _progress(False)
    try:
        report = audit_market(file, settings, progress)
    finally:
        stop()
    report["settings"] |= {"diffgame": version("diffgame"), "jax": jax.__version__}
    if target is not None:
        _write(target, report)
    print_report(file, report, Console())
    statuses = [report[mode][end]["status"] for mode in modes for end in ("best", "worst")]
    return 0 if all(status == "certified" for status in statuses) else 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal cannot show is no reason to lose the results.
            stream.reconfigure(errors="replace")
    try:
        options = _parser().parse_args(arguments)
        return _audit(options)
    except _Refused as refusal:
        print(f"diffgame: {refusal}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("diffgame: interrupted; nothing was written", file=sys.stderr)
        return 130
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
        print("diffgame: this is a fault of diffgame; please report it", file=sys.stderr)
        return 1
