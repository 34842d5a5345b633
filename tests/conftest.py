"""What all tests share: eight host devices, a cache of compiled programs, checked shapes, few repeatable examples."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import hypothesis
import jax
import jaxtyping
import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "singlestream" / "tests"
CACHE_BYTES = 2 * 1024**3
DEVICES = "--xla_force_host_platform_device_count=8"
# Compiles in a quarter of the time; what is compiled runs slower, which for tiny models is nothing. What XLA_FLAGS says
# wins; a flag that an XLA does not know ends the process. Cutting a program in parts that compile at once gains nothing
# where every core has a worker, and costs a third.
QUICK = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
if jax.__version_info__ < (0, 11):
    QUICK += " --xla_cpu_use_fusion_emitters=false"

# `pytest` alone leaves out the tests marked `slow`; `pytest tests`, or any path, -m or -k, runs all that it names.
FAST = "SINGLESTREAM_FAST_TESTS"

# Files that take longest, longest first: were one of them begun last, the other workers would wait for it.
LONGEST = (
    "test_recipes",
    "interop/test_vilbert",
    "train/test_pretraining",
    "train/test_two_stream_run",
    "train/test_step",
    "lab/test_experiments",
    "test_cli",
    "train/test_loop",
    "model/test_two_stream",
    "test_export",
    "test_evaluate",
    "objectives/test_task_runs",
    "test_captions",
    "train/test_cluster",
    "train/test_teachers",
    "test_docs",
    "train/test_kill",
)


def pytest_configure(config: pytest.Config) -> None:
    """Decides whether tests marked `slow` run, once for all workers, who are not told how pytest was called."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        bare = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        chosen = (getattr(config.option, name) for name in ("markexpr", "keyword", "lf", "failedfirst", "stepwise"))
        os.environ[FAST] = str(int(bare and not any(chosen)))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what is slow, and puts the slow files first: workers take files as they come."""
    if os.environ[FAST] == "1":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("slow")])
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    place = {f"tests/{name}.py": i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.nodeid.partition("::")[0], len(LONGEST)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says what was left out: of what workers leave out pytest says nothing."""
    if os.environ[FAST] == "1":
        terminalreporter.write_line("tests marked `slow` were left out; `pytest tests` runs all of them")


def _cache_folder() -> Path:
    """A folder of the user's own (compiled programs are code), or one for this session where there is no home."""
    try:
        CACHE.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="singlestream-tests-"))
    if "PYTEST_XDIST_WORKER" in os.environ:
        return CACHE
    # jax's own bound reads the whole folder, under a lock, for each entry that it writes: 0.5 s at 8,000 entries.
    entries = sorted(((entry.stat(), entry) for entry in CACHE.iterdir()), key=lambda each: each[0].st_mtime)
    excess = sum(stat.st_size for stat, _ in entries) - CACHE_BYTES
    for stat, entry in entries:
        if excess <= 0:
            break
        entry.unlink(missing_ok=True)
        excess -= stat.st_size
    return CACHE


def _start_jax() -> None:
    """Starts the backend with eight devices; a child process has one, as a user's would."""
    flags = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}".strip()
    os.environ["XLA_FLAGS"] = f"{flags} {DEVICES}"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
    jax.config.update("jax_compilation_cache_dir", str(_cache_folder()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.devices()
    os.environ["XLA_FLAGS"] = flags


_start_jax()
# Every annotated function and dataclass of the library checks its arrays' shapes and dtypes while the tests run.
jaxtyping.install_import_hook("singlestream", "beartype.beartype")

hypothesis.settings.register_profile(
    "few", deadline=None, max_examples=10, derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("many", parent=hypothesis.settings.get_profile("few"), max_examples=200)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))
