"""Trains a run: `python train.py --config=configs/quickstart.py --workdir=runs/quickstart`.

Any setting can be changed by a flag, `--config.train.num_steps=500`. Started again on the same folder it goes on from
the last checkpoint. docs/configs.md lists the settings, docs/cluster.md the ways to start it on many machines.
"""

from absl import flags
from ml_collections import config_flags

from singlestream import cli

CONFIG = config_flags.DEFINE_config_file("config", None, "file that makes the settings, see configs/")
WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run; it is made, or continued")


def main() -> None:
    from singlestream.config import Config

    cli.required(config=CONFIG.value, workdir=WORKDIR.value)
    config = Config.from_config_dict(CONFIG.value)
    if config.train.huge_pages:
        cli.use_huge_pages()
    # After the flags are known to be right: the import takes seconds.
    from singlestream.interop import training as weights
    from singlestream.train.loop import train

    train(config, WORKDIR.value, weights)


if __name__ == "__main__":
    cli.run(main)
