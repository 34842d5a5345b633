"""The loop: steps, reports, evaluation, checkpoints, and a clean way out at any moment."""

from __future__ import annotations

import collections
import contextlib
import functools
import math
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from singlestream.config import Config, ConfigError, TrainConfig
from singlestream.data.overlap import overlap_lines, read_ids
from singlestream.data.pipeline import count_truncated, train_iterator
from singlestream.train import checkpoint, results
from singlestream.train.build import Run, begun, build_run, validation_split
from singlestream.train.cluster import gather, join_cluster, sync
from singlestream.train.errors import CheckpointError, Interrupted, NonFiniteError
from singlestream.train.flops import peak_flops, train_flops
from singlestream.train.folder import RunFolder
from singlestream.train.initial import adopt_model, read_initial
from singlestream.train.metrics import Totals, Writer, read_rows
from singlestream.train.optimizer import make_optimizer
from singlestream.train.progress import Clock, Reporter
from singlestream.train.sharding import check_rows, make_mesh, put_rows, shard_rows
from singlestream.train.signals import Stop
from singlestream.train.state import init_state, place_init, split_model, take_params
from singlestream.train.step import compile_eval_step, compile_train_step, make_eval_step, make_train_step
from singlestream.train.teachers import fill_teachers
from singlestream.train.weights import Weights

# Steps that the device may be behind the host: enough to keep it busy, few enough to stop soon and to hold few batches.
IN_FLIGHT = 1


def train(config: Config, workdir: str | os.PathLike[str], weights: Weights | None = None) -> dict[str, float]:
    """Trains a run in its folder, from the start or from its last checkpoint, and returns its final results.

    Args:
        config: of the run.
        workdir: its folder.
        weights: reads published weights, which the loop knows nothing of: `singlestream.interop.training`.

    Raises:
        ConfigError, DataError, FolderError, CheckpointError: what a user can mend, in words.
        NonFiniteError: a loss or gradient was no finite number; nothing of it is saved.
        Interrupted: SIGTERM or SIGINT; the state is saved.
    """
    join_cluster()
    use_cache(config.train.cache_dir)
    first = jax.process_index() == 0
    folder = RunFolder.at(workdir)
    config = adopt_model(config.with_absolute_paths(), weights)
    report = Reporter(config.train.num_steps, quiet=not first, headline=config.train.best_metric)
    if first:
        folder.create()
    with folder.locked() if first else contextlib.nullcontext():
        if begun(folder):
            folder.check_same(config)
            done = finished(folder, config)
            if done is not None:
                last = checkpoint.steps(folder.checkpoints)[-1]
                report.note(f"{folder.path} is finished: it was trained to step {last} before; nothing to do")
                report.note(results.results_table(done, validation_split(config)))
                return done
        sync("checked")
        with contextlib.closing(Loop(build_run(config, folder, weights), report)) as loop:
            return loop.run_steps()


def finished(folder: RunFolder, config: Config) -> dict[str, float] | None:
    """The results of a run that reached its last step and wrote them, else None."""
    last = checkpoint.steps(folder.checkpoints)[-1:]
    if not last or last[0] < config.train.num_steps:
        return None
    rows = [row for row in read_rows(folder) if row["split"] == "results" and row["step"] == last[0]]
    return {k: v for k, v in rows[-1].items() if k not in ("step", "split")} if rows else None


def use_cache(folder: str) -> None:
    """Keeps compiled programs in the user's own cache folder (whoever can write there can run code as the user)."""
    jax.config.update("jax_enable_compilation_cache", folder != "none")
    if folder == "none":
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    path = Path(folder).expanduser() if folder else base / "singlestream" / "compiled"
    with contextlib.suppress(OSError):  # jax warns where it cannot write
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    jax.config.update("jax_compilation_cache_dir", str(path))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


class Loop:
    """A run in training: its compiled steps, its state, its data, and where its reports go."""

    def __init__(self, run: Run, report: Reporter):
        config = run.config
        self.run, self.report, self.train = run, report, config.train
        self.mesh = make_mesh(config.train.mesh)
        check_rows(config.train, self.mesh)
        graphdef, params = split_model(run.make_model)
        optimizer = make_optimizer(config.train, params)
        ema = config.train.ema_decay > 0
        init = functools.partial(init_state, run.make_model, optimizer, run.objectives, run.spec, ema=ema)
        self._init, self.abstract = place_init(init, self.mesh)
        batch, eval_batch = (shard_rows(run.empty_batch(evaluation=e), self.mesh) for e in (False, True))
        eval_fn = make_eval_step(graphdef, run.objectives, config, run.spec, self.mesh)
        number = jax.ShapeDtypeStruct((), jnp.int32)
        _check_best(config.train, {"loss", *jax.eval_shape(eval_fn, self.abstract, eval_batch, number)})
        size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
        report.note(f"{size:,} parameters on {self.mesh.size} x {jax.devices()[0].device_kind}; compiling")
        cut, texts = count_truncated(run.source, run.processor)
        if cut:
            length = config.data.text_length
            report.note(f"{cut:,} of {texts:,} different texts are cut to config.data.text_length={length} tokens")
        if run.validation is not None and run.folder.pictures.is_file():
            trained = read_ids(run.folder.pictures)
            for line in overlap_lines(trained, run.validation, validation_split(config)):
                report.note(line)
        step_fn = make_train_step(graphdef, run.objectives, optimizer, config, run.spec, self.mesh)
        self.train_step = compile_train_step(step_fn, self.abstract, batch, self.mesh)
        self.eval_step = compile_eval_step(eval_fn, self.abstract, eval_batch, self.mesh)
        self.flops = train_flops(config.model, batch)
        self.iterator = train_iterator(
            run.source,
            run.processor,
            batch_size=config.train.batch_size,
            seed=config.seed,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with contextlib.ExitStack() as opened:  # closes again if what follows fails
            self.checkpoints = checkpoint.Checkpoints(run.folder.checkpoints, config.train, self.abstract)
            opened.callback(self.checkpoints.close)
            self.step, self.state, self.totals = self._start()
            self.writer = Writer(run.folder, self.step) if jax.process_index() == 0 else None
            if self.writer is not None:
                opened.callback(self.writer.close)
            self._opened = opened.pop_all()
        self._pending: collections.deque[tuple[int, Any]] = collections.deque()
        self._clock, self._since = Clock(), (self.step, 0.0)

    def close(self) -> None:
        """Closes the reports, and the checkpoints whatever becomes of those."""
        self._opened.close()

    def _start(self) -> tuple[int, Any, Totals]:
        """State, data and totals as the last checkpoint left them, or those of step 0."""
        steps = self.checkpoints.steps()
        if not steps:
            state = self._init()
            for line in fill_teachers(state["objectives"], self.run.config, self.run.weights):
                self.report.note(line)
            return 0, self._take(state) if self.run.config.init else state, Totals()
        state, loop = self.checkpoints.restore(steps[-1])
        packed = self.run.config.data.row_patches > 0
        self.iterator.set_state(_own(loop["data"], self.run.folder.checkpoints / str(steps[-1]), packed=packed))
        self.report.note(f"continuing from step {steps[-1]} ({self.run.folder.checkpoints / str(steps[-1])})")
        return steps[-1], state, Totals(loop["totals"])

    def _take(self, state: Any) -> Any:
        """Parameters of another run's best checkpoint or of published weights, where path, shape and meaning agree."""
        initial = read_initial(self.run.config, self.run.weights)
        others, given = self.run.heads_of_other_classes(initial), initial.params
        state["params"], taken, fresh = take_params(state["params"], given, others)
        if "ema" in state:
            state["ema"] = jax.tree.map(jnp.copy, state["params"])
        self.report.note(f"from {initial.where}: {len(taken)} arrays taken, {len(fresh)} stay fresh")
        known = [name for name in others if any(path.startswith(f"heads/{name}/") for path in given)]
        lists = (
            ("fresh", fresh),
            ("not used", sorted(set(given) - set(taken))),
            ("of other classes there", known),
            ("more pictures here, further ones as the last there", initial.longer),
        )
        for title, names in lists:
            if names:
                self.report.note(f"  {title}: {', '.join(names)}")
        return state

    def run_steps(self) -> dict[str, float]:
        """Trains to the end and returns the results on the validation split."""
        stop, train = Stop(), self.train
        with stop.listening(), self.report.live(self.step), contextlib.ExitStack() as profiler:
            batch = self._next() if self.step < train.num_steps else None
            while self.step < train.num_steps:
                self._profile(profiler)
                with jax.transfer_guard("disallow"):
                    self.state, metrics = self.train_step(self.state, batch)
                self.step += 1
                self._pending.append((self.step, metrics))
                evaluates = self.step % train.eval_every == 0 or self.step == train.num_steps
                stopping = stop.asked(self.step)
                saves = evaluates or stopping or self.step % train.checkpoint_every == 0
                data = self.iterator.get_state() if saves else None
                if self.step < train.num_steps and not stopping:
                    batch = self._next()  # while the device computes
                self._drain(0 if saves else IN_FLIGHT)
                if saves:
                    self._save(data, self._evaluate() if evaluates else None)
                if stopping and self.step < train.num_steps:
                    self._leave(stop.signal)
        return self._finish()

    def _next(self) -> Any:
        return put_rows(next(self.iterator), self.mesh)

    def _drain(self, keep: int) -> None:
        """Fetches the metrics of steps that are done (all but the `keep` newest) and reports them.

        Raises:
            NonFiniteError: a loss or gradient is no finite number.
        """
        while len(self._pending) > keep:
            step, metrics = self._pending.popleft()
            values = self.totals.add(metrics)
            for name in ("loss", "gradient_norm"):
                if not math.isfinite(values[name]):
                    self._refuse(step, name, values)
            self._report(step, values)

    def _report(self, step: int, values: dict[str, float]) -> None:
        since, then = self._since
        seconds = max(self._clock.seconds() - then, 1e-9)
        per_step = seconds / (step - since)
        count, total = self.totals.values["examples"][::-1]
        rate = total / count / per_step
        left = (self.train.num_steps - step) * per_step
        if step % self.train.log_every and step != self.train.num_steps:
            self.report.step(step, values, rate, left)
            return
        row = self.totals.means()
        row |= {"examples_per_second": rate, "seconds_per_step": per_step}
        peak = peak_flops(jax.devices()[0].device_kind)
        if peak is not None:
            row["flops_utilisation"] = self.flops / per_step / peak / self.mesh.size
        self.report.line(step, row, rate, left)
        if self.writer is not None:
            self.writer.write(step, "train", row)
        self.totals, self._since = Totals(), (step, self._clock.seconds())

    def _refuse(self, step: int, name: str, values: dict[str, float]) -> None:
        self.checkpoints.wait()
        good = self.checkpoints.steps()
        where = (
            f"the last good checkpoint is {self.run.folder.checkpoints / str(good[-1])}"
            if good
            else ("there is no checkpoint yet")
        )
        what = {"loss": "loss", "gradient_norm": "gradient's norm"}[name]
        raise NonFiniteError(f"stopped: the {what} of step {step} is {values[name]}; {where}")

    def _evaluate(self) -> dict[str, float] | None:
        if self.run.validation is None:
            return None
        with self._clock.paused():
            values = results.evaluate(self.eval_step, self.state, self.run, self.mesh, limit=self.train.eval_batches)
        _check_best(self.train, values)
        if self.writer is not None:
            self.writer.write(self.step, "validation", values)
        shown = (f"{name} {value:.4f}" for name, value in values.items() if name == "loss" or "accuracy" in name)
        self.report.note(f"step {self.step}: validation {'  '.join(shown)}")
        return values

    def _save(self, data: Any, scores: dict[str, float] | None) -> None:
        with self._clock.paused():
            loop = {"data": gather(data), "totals": self.totals.values}
            self.checkpoints.save(self.step, self.state, loop, scores)

    def _leave(self, number: int) -> None:
        self.checkpoints.wait()
        saved = self.run.folder.checkpoints / str(self.step)
        raise Interrupted(f"stopped by a signal at step {self.step}, saved as {saved}; start again to go on", number)

    def _profile(self, stack: contextlib.ExitStack) -> None:
        first, last = self.train.profile
        if last and self.step == first:
            stack.enter_context(jax.profiler.trace(str(self.run.folder.profile)))
        elif last and self.step == last:
            self._drain(0)
            stack.close()

    def _finish(self) -> dict[str, float]:
        """The results on all of the validation split; written to `metrics.jsonl` and shown."""
        self.checkpoints.wait()
        if self.run.validation is None:
            values: dict[str, float] = {}
        else:
            values = results.evaluate(self.eval_step, self.state, self.run, self.mesh, limit=0)
            values |= results.without_picture(self.run)
        if self.writer is not None:
            self.writer.write(self.step, "results", values)
        self.report.note(results.results_table(values, validation_split(self.run.config)))
        return values


def _check_best(train: TrainConfig, metrics: Collection[str]) -> None:
    """Raises ConfigError where an evaluation with these metrics has not the one that says what is best."""
    if (train.best_metric or "loss") not in metrics:
        found = ", ".join(sorted(metrics)) or "nothing"
        raise ConfigError(f"config.train.best_metric={train.best_metric!r}: evaluation gives {found}")


def _own(states: list[Any], folder: Path, *, packed: bool) -> Any:
    """This process's part of what data iterators saved, one for each process of that time."""
    if len(states) == jax.process_count():
        return states[jax.process_index()]
    if packed:
        raise CheckpointError(
            f"{folder} was saved by {len(states)} processes that each packed rows of their own; "
            f"go on with as many, now there are {jax.process_count()}"
        )
    return states[0]
