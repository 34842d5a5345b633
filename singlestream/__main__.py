"""The command `singlestream`, also `python -m singlestream`.

singlestream export --workdir=RUN --output=FOLDER [--checkpoint=best] [--platforms=cpu,cuda,tpu] [--head=vqa]
singlestream explain IMAGE... "TEXT" --workdir=RUN --output=PAGE.html [--checkpoint=best] [--answer=red] [--prune=0.5]
    [--audio=SOUND.wav] [--shown=PICTURE,...]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from singlestream import cli
from singlestream.train.errors import FolderError

if TYPE_CHECKING:
    from singlestream.explained import Explained

USAGES = {
    "export": "singlestream export --workdir=RUN --output=FOLDER",
    "explain": 'singlestream explain IMAGE... "TEXT" --workdir=RUN --output=PAGE.html',
}
USAGE = f"usage: {', or '.join(USAGES.values())} (with --help all flags are shown)"
FLAGS = flags.FLAGS


def main() -> None:
    name, *arguments = sys.argv[1:] or [""]
    sys.argv = ["singlestream"]
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return
    if name not in USAGES:
        cli.fail(f"no command {name!r}; {USAGE}" if name else USAGE)
    # absl has --help list the flags whose `module_name` this is.
    sys.argv = [f"singlestream {name}", *arguments]
    flags.DEFINE_string("workdir", "", "a run's folder, or a published checkpoint's", module_name=sys.argv[0])
    flags.DEFINE_string("checkpoint", "best", "of a run: best, latest, or a step", module_name=sys.argv[0])
    if name == "export":
        flags.DEFINE_string("output", "", "folder to write; it must not exist", module_name=sys.argv[0])
        flags.DEFINE_list("platforms", "cpu,cuda,tpu", "that the program is lowered for", module_name=sys.argv[0])
        flags.DEFINE_list("head", "", "heads to take along; all if empty", module_name=sys.argv[0])
        cli.run(_export)
    flags.DEFINE_string("output", "", "page to write; one that is there is replaced", module_name=sys.argv[0])
    flags.DEFINE_string("answer", "", "to be explained; the model's own if empty", module_name=sys.argv[0])
    flags.DEFINE_string("audio", "", "file .wav that is heard with the image", module_name=sys.argv[0])
    flags.DEFINE_list("shown", "", "of regions: the pictures to draw them on", module_name=sys.argv[0])
    flags.DEFINE_float(
        "prune",
        0.0,
        "share of image tokens to keep, as Model.pruned(keep=...); 0: as the model is",
        module_name=sys.argv[0],
    )
    cli.run(_explain, arguments=("IMAGE...", '"TEXT"'))


def _export() -> None:
    cli.required(workdir=FLAGS.workdir, output=FLAGS.output)
    # After the flags are known to be right: the import takes seconds.
    from singlestream.export import check_platforms, export
    from singlestream.loading import load

    check_platforms(FLAGS.platforms)
    model = load(FLAGS.workdir, FLAGS.checkpoint)
    folder = export(model, FLAGS.output, platforms=FLAGS.platforms, heads=FLAGS.head or None)
    print(f"wrote {folder} (step {model.step}, for {', '.join(FLAGS.platforms)})")


def _explain(*arguments: str) -> None:
    *images, text = arguments
    cli.required(workdir=FLAGS.workdir, output=FLAGS.output)
    page = Path(FLAGS.output)
    if page.is_dir() or not page.parent.is_dir():
        raise FolderError(f"--output={page}: expected a page to write, in a folder that is there")
    if missing := [name for name in (*images, *FLAGS.shown) if not Path(name).is_file()]:
        raise FolderError(f"{missing[0]}: no such file")
    from singlestream.explained import explain_answer
    from singlestream.explained_page import write_explained
    from singlestream.loading import load

    model = load(FLAGS.workdir, FLAGS.checkpoint)
    model = model.pruned(keep=FLAGS.prune) if FLAGS.prune else model
    given = tuple(images) if len(images) > 1 else images[0]
    found = explain_answer(model, given, text, FLAGS.answer, audio=FLAGS.audio or None, shown=FLAGS.shown)
    write_explained(found, page, title=f"{Path(FLAGS.workdir).resolve().name}, step {model.step:,}")
    print(_told(found, page))


def _told(found: Explained, page: Path) -> str:
    """The line that says what was explained, and where."""
    told: dict[str, str | float] = {"page": str(page)}
    if found.prediction:
        told = {"answer": found.answer, "probability": round(found.prediction.probabilities[found.answer], 6), **told}
    return json.dumps(told, ensure_ascii=False)


if __name__ == "__main__":
    main()
