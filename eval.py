"""Evaluates a run: `python eval.py --workdir=runs/quickstart --split=test --report`.

Needs the run's folder alone. Writes `eval/SPLIT/metrics.json` and `predictions.jsonl` into it, with `--report` also the
page `report.html`; the last line of its output is the metrics as one line of JSON. With `--prune=0.5` the model keeps
that share of its image tokens after its first layer, and the folder is `eval/SPLIT-prune-0.5/`. A run that writes
captions, gives labels, finds what a text means or chooses among texts also writes `captions.jsonl`, `labels.jsonl`,
`groundings.jsonl` or `choices.jsonl`; `--search` and the flags beside it say how captions are written, and
`--together=RUN` counts what this run and another one, evaluated before, both answer right (VCR's answers and reasons).
"""

from typing import Any

from absl import flags

from singlestream import cli
from singlestream.config import ConfigError

WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best, latest, or a step")
SPLIT = flags.DEFINE_string("split", "test", "split to evaluate on")
DATA_DIR = flags.DEFINE_string("data_dir", "", "where the data lies, if not where the run's config says")
RETRIEVE = flags.DEFINE_integer("retrieve", 0, "also retrieve over the whole split, re-ranking the best so many; 0: no")
PRUNE = flags.DEFINE_float(
    "prune", 0.0, "share of the image tokens to keep, as Model.pruned(keep=...); 0: as the run is"
)
TOGETHER = flags.DEFINE_string("together", "", "folder of another run on `choose`: also count what both answer right")
SEARCH: dict[str, flags.FlagHolder[Any]] = {  # fields of `singlestream.Search`
    "kind": flags.DEFINE_string("search", "beam", "how captions are written: beam, greedy, sample"),
    "num_beams": flags.DEFINE_integer("beams", 5, "width of the beam"),
    "length_penalty": flags.DEFINE_float("length_penalty", 0.0, "of the beam; above 0 longer captions win more often"),
    "top_p": flags.DEFINE_float("top_p", 0.9, "with --search=sample: share of the probability that is drawn from"),
    "temperature": flags.DEFINE_float("temperature", 1.0, "with --search=sample: divides the logits"),
    "seed": flags.DEFINE_integer("seed", 0, "with --search=sample: of the draws", lower_bound=0, upper_bound=2**31 - 1),
}
REPORT = flags.DEFINE_bool("report", False, "also write eval/SPLIT/report.html")


def main() -> None:
    cli.required(workdir=WORKDIR.value)
    import json

    # After the flags are known to be right: the import takes seconds.
    from rich.console import Console

    from singlestream.answers import answers_table
    from singlestream.evaluate import evaluate
    from singlestream.model.captions import Search
    from singlestream.train.folder import RunFolder
    from singlestream.train.loop import use_cache

    asked = any(flag.present for flag in SEARCH.values())
    try:
        search = Search(**{field: flag.value for field, flag in SEARCH.items()}) if asked else None
    except ValueError as error:
        raise ConfigError(f"--search and its flags: {error}") from error

    folder = RunFolder.at(WORKDIR.value)
    if folder.is_run:
        use_cache(folder.read_config().train.cache_dir)

    metrics = evaluate(
        WORKDIR.value,
        split=SPLIT.value,
        checkpoint=CHECKPOINT.value,
        data_dir=DATA_DIR.value,
        report=REPORT.value,
        shortlist=RETRIEVE.value,
        prune=PRUNE.value,
        together=TOGETHER.value,
        search=search,
    )
    if "vqa/accuracy" in metrics:
        Console().print(answers_table(metrics, SPLIT.value))
    print(json.dumps(metrics))


if __name__ == "__main__":
    cli.run(main)
