"""The command `singlestream`, also `python -m singlestream`.

singlestream export --workdir=RUN --output=FOLDER [--checkpoint=best] [--platforms=cpu,cuda,tpu] [--head=vqa]
"""

from __future__ import annotations

import sys

from absl import flags

from singlestream import cli

COMMAND = "singlestream export"
USAGE = f"usage: {COMMAND} --workdir=RUN --output=FOLDER ({COMMAND} --help shows all flags)"

# `module_name` has --help list these flags; absl looks for those of sys.argv[0], which `main` sets.
WORKDIR = flags.DEFINE_string("workdir", "", "a run's folder, or a published checkpoint's", module_name=COMMAND)
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "of a run: best, latest, or a step", module_name=COMMAND)
OUTPUT = flags.DEFINE_string("output", "", "folder to write; it must not exist", module_name=COMMAND)
PLATFORMS = flags.DEFINE_list("platforms", "cpu,cuda,tpu", "that the program is lowered for", module_name=COMMAND)
HEADS = flags.DEFINE_list("head", "", "heads to take along; all if empty", module_name=COMMAND)


def main() -> None:
    name, *arguments = sys.argv[1:] or [""]
    sys.argv = ["singlestream"]
    if name in ("-h", "--help", "help"):
        print(USAGE)
        return
    if name != "export":
        cli.fail(f"no command {name!r}; {USAGE}" if name else USAGE)
    sys.argv = [COMMAND, *arguments]
    cli.run(_export)


def _export() -> None:
    cli.required(workdir=WORKDIR.value, output=OUTPUT.value)
    # After the flags are known to be right: the import takes seconds.
    from singlestream.export import check_platforms, export
    from singlestream.loading import load

    check_platforms(PLATFORMS.value)
    model = load(WORKDIR.value, CHECKPOINT.value)
    folder = export(model, OUTPUT.value, platforms=PLATFORMS.value, heads=HEADS.value or None)
    print(f"wrote {folder} (step {model.step}, for {', '.join(PLATFORMS.value)})")


if __name__ == "__main__":
    main()
