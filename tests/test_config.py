"""Settings: what goes in comes out, and what cannot be is refused by one line that names the key."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from singlestream.config import Config, ConfigError, DataConfig, GroupConfig, MeshConfig, TrainConfig, build_options
from singlestream.model.config import SIZES, ModelConfig

SHARED_PICTURE = {"data": DataConfig(texts_per_row=4), "model": ModelConfig(direction="prefix")}


def every_field_changed() -> Config:
    return Config(
        seed=7,
        init="runs/other",
        data=DataConfig(name="nlvr", options={"boxes": 3}, kinds=("colour", "shape"), augment=("shift",), share=0.5),
        model=ModelConfig.named("small", image_grid=(3, 9), dropout=0.1),
        objectives={"mlm": 1.0, "itm": 0.5},
        objective_options={"mlm": {"whole_words": True}},
        train=TrainConfig(
            groups=(GroupConfig(pattern="embed", rate=0.1), GroupConfig(pattern="bias", frozen=True)),
            mesh=MeshConfig(data=2, fsdp=2),
            profile=(10, 20),
        ),
    )


def test_json_gives_the_same_config_back():
    config = every_field_changed()
    assert Config.from_json(config.to_json()) == config
    assert Config.from_json(Config().to_json()) == Config()


def test_config_dict_gives_the_same_config_back():
    config = every_field_changed()
    assert Config.from_config_dict(config.to_config_dict()) == config


@given(
    steps=st.integers(1, 10**9),
    rate=st.floats(1e-9, 10, allow_nan=False),
    kinds=st.lists(st.text(max_size=5)),
    weights=st.dictionaries(st.text("abcdef", min_size=1), st.floats(0.1, 10), min_size=1),
)
def test_any_valid_values_survive_the_round_trip(steps, rate, kinds, weights):
    config = Config(
        data=DataConfig(kinds=tuple(kinds)),
        objectives=weights,
        train=TrainConfig(num_steps=steps, learning_rate=rate),
    )
    assert Config.from_json(config.to_json()) == config
    assert Config.from_config_dict(config.to_config_dict()) == config


def test_config_dict_is_what_the_command_line_changes():
    config = Config().to_config_dict()
    config.train.num_steps = 3
    config.train.learning_rate = 1  # an integer where a float belongs is that float
    built = Config.from_config_dict(config)
    assert built.train.num_steps == 3
    assert built.train.learning_rate == 1.0 and isinstance(built.train.learning_rate, float)
    with pytest.raises(AttributeError):
        config.train.num_stepz = 3
    with pytest.raises(TypeError):
        config.train.num_steps = "many"


def test_named_sizes():
    for name, (width, num_layers, num_heads, mlp_dim) in SIZES.items():
        config = ModelConfig.named(name)
        assert (config.width, config.num_layers, config.num_heads, config.mlp_dim) == (
            width,
            num_layers,
            num_heads,
            mlp_dim,
        )
    assert ModelConfig.named("base", num_layers=3).num_layers == 3
    assert ModelConfig(patch_size=8, patch_margin=2).window == 12
    with pytest.raises(ValueError, match="no model size 'huge': choose one of tiny, small, base, large"):
        ModelConfig.named("huge")


REFUSED = [
    (DataConfig, {"texts": "poems"}, "config.data.texts='poems': choose one of questions, captions, all"),
    (DataConfig, {"max_patches": 0}, "config.data.max_patches=0: must be at least 1"),
    (DataConfig, {"share": 0.0}, r"config.data.share=0.0: must be in \(0, 1\]"),
    (DataConfig, {"share": 1.5}, "config.data.share=1.5"),
    (DataConfig, {"text_length": 2}, r"config.data.text_length=2: \[CLS\], a word, \[SEP\] need 3"),
    (
        DataConfig,
        {"text_length": 3, "mask_last": True},
        r"text_length=3: \[CLS\], a word, \[MASK\], \[SEP\] need 4",
    ),
    (DataConfig, {"shorter_side": -1}, "config.data.shorter_side=-1: must be at least 0"),
    (DataConfig, {"row_patches": 9}, "config.data.row_patches=9: .* needs config.data.examples_per_row above 1"),
    (DataConfig, {"texts_per_row": 2, "examples_per_row": 2}, "set one of them to 1"),
    (DataConfig, {"vocab_size": 5}, "config.data.vocab_size=5: five special tokens and one letter need 6"),
    (DataConfig, {"prefetch": -1}, "config.data.prefetch=-1: must be at least 0"),
    (ModelConfig, {"norm": "middle"}, "config.model.norm='middle': choose one of pre, post"),
    (ModelConfig, {"num_layers": 0}, "config.model.num_layers=0 is late fusion, which needs"),
    (ModelConfig, {"num_token_types": 0}, "config.model.num_token_types=0: must be at least 1"),
    (ModelConfig, {"norm_eps": math.nan}, "config.model.norm_eps=nan: must be at least 0"),
    (ModelConfig, {"image_grid": (3, 0)}, r"config.model.image_grid=\(3, 0\): must be at least \(1, 1\)"),
    (ModelConfig, {"width": 10, "num_heads": 3}, "config.model.width=10 is not divisible by config.model.num_heads=3"),
    (ModelConfig, {"dropout": 1.0}, r"config.model.dropout=1.0: must be in \[0, 1\)"),
    (ModelConfig, {"image_stem": "regions"}, "config.model.image_positions='learned' does not go with"),
    (TrainConfig, {"optimizer": "sgd"}, "config.train.optimizer='sgd': choose one of adamw, lion, muon"),
    (TrainConfig, {"schedule": "steps"}, "config.train.schedule='steps'"),
    (TrainConfig, {"num_steps": 0}, "config.train.num_steps=0: must be at least 1"),
    (TrainConfig, {"keep_latest": 0}, "config.train.keep_latest=0: must be at least 1"),
    (TrainConfig, {"learning_rate": 0.0}, "config.train.learning_rate=0.0: must be above 0"),
    (TrainConfig, {"learning_rate": math.nan}, "config.train.learning_rate=nan: must be above 0"),
    (TrainConfig, {"muon_learning_rate": math.nan}, "config.train.muon_learning_rate=nan: must be above 0"),
    (TrainConfig, {"eval_batches": -1}, "config.train.eval_batches=-1: must be at least 0"),
    (TrainConfig, {"warmup_steps": -1}, "config.train.warmup_steps=-1: must be at least 0"),
    (TrainConfig, {"weight_decay": -0.1}, "config.train.weight_decay=-0.1: must be at least 0"),
    (TrainConfig, {"clip_norm": math.nan}, "config.train.clip_norm=nan: must be at least 0"),
    (TrainConfig, {"beta2": 1.0}, r"config.train.beta2=1.0: must be in \[0, 1\)"),
    (TrainConfig, {"profile": (20, 20)}, r"config.train.profile=\(20, 20\): the first step must be .* below the last"),
    (TrainConfig, {"profile": (25, 20)}, r"config.train.profile=\(25, 20\)"),
    (GroupConfig, {"rate": math.nan}, "config.train.groups.rate=nan: must be at least 0"),
    (TrainConfig, {"batch_size": 6, "accumulate": 4}, "config.train.batch_size=6 is not divisible by"),
    (TrainConfig, {"ema_decay": 1.0}, r"config.train.ema_decay=1.0: must be in \[0, 1\)"),
    (Config, {"objectives": {"vqa": -1.0}}, "config.objectives.vqa=-1.0: a weight is at least 0"),
    (Config, {"objectives": {"vqa": math.nan}}, "config.objectives.vqa=nan: a weight is at least 0"),
    (Config, {"objectives": {"vqa": 0.0}}, "at least one objective needs a weight above 0"),
    (Config, {"objective_options": {"mlm": {}}}, "config.objective_options.mlm: config.objectives has no 'mlm'"),
    (Config, {"data": DataConfig(texts_per_row=2)}, "needs a single stream with config.model.direction='prefix'"),
    (Config, {"data": DataConfig(text_length=65)}, "is more than config.model.max_text_length=64 positions"),
]


@pytest.mark.parametrize(("cls", "values", "message"), REFUSED, ids=[r[2][:40] for r in REFUSED])
def test_what_cannot_be_is_refused(cls, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        cls(**values)
    assert "\n" not in str(caught.value)


def test_what_only_looks_wrong_is_allowed():
    Config(**SHARED_PICTURE)
    Config(data=DataConfig(text_length=65), model=ModelConfig(text_positions="sinusoidal"))


WRONG_VALUES = [
    ({"sede": 1}, "config.sede: no such key; config has data, init, model, objective_options, objectives, seed, train"),
    ({"train": {"num_stepz": 1}}, "config.train.num_stepz: no such key; config.train has accumulate, batch_size"),
    ({"seed": "one"}, "config.seed='one': expected int, got str"),
    ({"seed": True}, "config.seed=True: expected int, got bool"),
    ({"seed": 1.0}, "config.seed=1.0: expected int, got float"),
    ({"train": 3}, "config.train=3: expected keys and values of TrainConfig"),
    ({"data": {"kinds": "colour"}}, "config.data.kinds='colour': expected a sequence"),
    ({"data": {"kinds": [1]}}, "config.data.kinds=1: expected str, got int"),
    ({"train": {"profile": [1]}}, r"config.train.profile=\[1\]: expected 2 values"),
    ({"objectives": 1.0}, "config.objectives=1.0: expected keys and values"),
    ({"objectives": {"vqa": "much"}}, "config.objectives.vqa='much': expected float, got str"),
    ({"model": {"norm": "middle"}}, "config.model.norm='middle'"),
    ({"train": {"num_steps": 0}}, "config.train.num_steps=0: must be at least 1"),
    ({"train": {"groups": [{"patern": "x"}]}}, "config.train.groups.patern: no such key"),
]


@pytest.mark.parametrize(("values", "message"), WRONG_VALUES, ids=[m[:40] for _, m in WRONG_VALUES])
def test_wrong_keys_and_types_are_named(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        Config.from_json(json.dumps(values))
    assert "\n" not in str(caught.value)


def test_dataclasses_pass_where_their_keys_would():
    group = GroupConfig(pattern="x")
    assert build_options(TrainConfig, {"groups": [group]}, "config.train").groups == (group,)


def test_options_of_others_are_built_alike():
    @dataclasses.dataclass(frozen=True)
    class Options:
        rate: float = 0.15
        extra: object = None

    assert build_options(Options, {"rate": 1}, "config.objective_options.mlm") == Options(1.0)
    with pytest.raises(ConfigError, match="config.objective_options.mlm.rat: no such key; .* has extra, rate"):
        build_options(Options, {"rat": 1}, "config.objective_options.mlm")


def test_paths_are_those_of_the_folder_where_a_run_began(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config(init="runs/first", data=DataConfig(dir="data"), train=TrainConfig(cache_dir="none"))
    absolute = config.with_absolute_paths()
    assert (absolute.init, absolute.data.dir) == (str(tmp_path / "runs/first"), str(tmp_path / "data"))
    assert absolute.train.cache_dir == "none"
    assert absolute.with_absolute_paths() == absolute
    assert Config().with_absolute_paths() == Config()
