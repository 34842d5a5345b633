"""The frame around the programs: flags, and a user's mistake as one clear line instead of a traceback."""

from __future__ import annotations

import functools
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn

from absl import app, flags, logging

from singlestream.config import ConfigError
from singlestream.data.record import DataError
from singlestream.train.errors import Interrupted, RunError

_HUGE_PAGES = "glibc.malloc.hugetlb=1"
# One arena that neither maps large blocks apart nor gives memory back: XLA asks for a step's temporary memory anew each
# step, and the system would clear every page of it again.
_KEPT_MEMORY = (
    "glibc.malloc.arena_max=1",
    f"glibc.malloc.mmap_threshold={1 << 40}",
    f"glibc.malloc.trim_threshold={1 << 40}",
)


def run(main: Callable[..., Any], *, arguments: Sequence[str] = ()) -> NoReturn:
    """Parses the flags, calls `main`, and leaves with a status.

    Args:
        arguments: names of what stands beside the flags, in order; `main` is called with it. A name that ends in "..."
            stands for one or more.

    0: done. 1: a mistake that a user can mend (one line on standard error), or an error of the program (a traceback).
    128 + n: stopped by signal n, everything saved.
    """
    sys.unraisablehook = _unraisable
    sys.excepthook = _except_late
    # Another echo of a checkpoint that could not be written, see `_unraisable`.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    try:
        app.run(lambda argv: main(*argv[1:]), flags_parser=functools.partial(_parse, names=arguments))
    except Interrupted as error:
        _say(error)
        sys.exit(128 + error.signal)
    except (ConfigError, DataError, RunError, OSError) as error:
        fail(error)
    except ValueError as error:
        # Raised at the model's door; its module imports jax, which a wrong flag need not wait for.
        from singlestream.batch import BatchError

        if isinstance(error, BatchError):
            fail(error)
        raise
    except KeyboardInterrupt:
        _say("interrupted")
        sys.exit(130)
    sys.exit(0)


def _except_late(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Leaves out what the threads of a failed checkpoint say after its failure has been reported to the loop."""
    if not _is_echo(error):
        sys.__excepthook__(kind, error, trace)


def fail(error: Any) -> NoReturn:
    """One line on standard error, status 1."""
    _say(error)
    sys.exit(1)


def _unraisable(error: Any) -> None:
    """Leaves out the echoes of a checkpoint that failed to be written or read.

    The storage library's other writes and reads end when their event loop is closed, and each says so with a
    traceback; the failure itself comes as one line.
    """
    if not _is_echo(error.exc_value):
        sys.__unraisablehook__(error)


def _is_echo(error: BaseException | None) -> bool:
    closed = isinstance(error, RuntimeError) and str(error) == "Event loop is closed"
    return closed or isinstance(error and error.__cause__, GeneratorExit)


def required(**values: Any) -> None:
    """Raises ConfigError for a flag that is not given; `values` are flags by name."""
    for name, value in values.items():
        if value is None or value == "":
            raise ConfigError(f"--{name} is missing (--help shows all flags)")


def _say(error: Any) -> None:
    text = " ".join(str(error).split()) or type(error).__name__
    print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr, flush=True)


def _parse(argv: Sequence[str], names: Sequence[str]) -> list[str]:
    """Parses flags; whatever is wrong with them, or with the config file that one of them names, becomes one line."""
    for argument in argv[1:]:
        path = argument.removeprefix("--config=").partition(":")[0]
        if argument.startswith("--config=") and not os.path.isfile(path):
            fail(f"{argument}: no such file")
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, ConfigError, OSError) as error:
        fail(_without_trace(str(error)))
    except Exception as error:  # a config file is code: it may raise anything
        fail(_explain(error, argv))
    several = any(name.endswith("...") for name in names)
    if not several and (unexpected := rest[1 + len(names) :]):
        fail(f"unexpected argument {unexpected[0]!r}: flags are written --name=value")
    if missing := names[len(rest) - 1 :]:
        fail(f"{' and '.join(missing)} {'are' if missing[1:] else 'is'} missing (--help shows all flags)")
    if flags.FLAGS["verbosity"].using_default_value:
        flags.FLAGS["verbosity"].using_default_value = False
        logging.set_verbosity(logging.FATAL)  # the libraries' own accounts; what they fail at comes as one line
    return rest


def _without_trace(text: str) -> str:
    """What a config file raised, of the whole trace that ml_collections makes a flag's error of."""
    if "Traceback (most recent call last)" not in text:
        return text
    last = text.strip().splitlines()[-1]
    return last.removeprefix("ValueError: ")


def _explain(error: Exception, argv: Sequence[str]) -> str:
    """What a config file, or ml_collections setting one of its keys, raised."""
    text = str(error)
    unknown, meant = re.search(r"\w+", text), re.search(r'Did you mean "(\w+)"', text)
    if isinstance(error, AttributeError | KeyError) and unknown:
        # The error has one word of the key: two arguments that share it cannot be told apart.
        named = [argument for argument in argv[1:] if f".{unknown[0]}." in f"{argument.partition('=')[0]}."]
        if named:
            return f"{' or '.join(named)}: no such setting{f', did you mean {meant[1]}?' if meant else ''}"
    if "get_config" in text and isinstance(error, AttributeError):
        return "the config file has no function get_config()"
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"
    return f"{type(error).__name__}: {text}{where}"


def use_huge_pages(environ: Mapping[str, str] = os.environ) -> None:
    """On a CPU, starts this program again with an allocator that uses huge pages and keeps them, and says so.

    The C library reads the setting only when a process starts. It spares a step's page faults (benchmarks/README.md has
    what they cost). Does nothing where another platform computes, where the system has no such pages, or when it was
    done already; settings of the allocator that the user made stay.
    """
    tunables = environ.get("GLIBC_TUNABLES", "")
    if "glibc.malloc.hugetlb" in tunables or not _on_cpu(environ) or not _has_huge_pages():
        return
    wanted = (setting for setting in (_HUGE_PAGES, *_KEPT_MEMORY) if setting.partition("=")[0] not in tunables)
    value = ":".join(filter(None, (tunables, *wanted)))
    print(f"starting again with GLIBC_TUNABLES={value} (not with --config.train.huge_pages=False)", flush=True)
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**environ, "GLIBC_TUNABLES": value})


def _on_cpu(environ: Mapping[str, str]) -> bool:
    """Whether jax will compute on the CPU, guessed without importing it."""
    platforms = environ.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    devices = ("/dev/nvidia0", "/dev/accel0", "/dev/vfio/0", "/dev/kfd")
    return not any(os.path.exists(device) for device in devices)


def _has_huge_pages() -> bool:
    try:
        with open("/sys/kernel/mm/transparent_hugepage/enabled") as file:
            return sys.platform == "linux" and "[never]" not in file.read()
    except OSError:
        return False
