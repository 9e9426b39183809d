"""What --config.FIELD may be, parsed in this process."""

import sys

import pytest
from absl import flags
from ml_collections import config_flags

from launch import values
from pnoise_jax import noise, training
from pnoise_jax.training.configuration.config import flatten, validate

_UNSET = [field for field, value in flatten(training.default_config()) if value is None]


@pytest.fixture
def parse(monkeypatch):
    """Parses arguments with --config into a config."""

    def parse_arguments(*arguments, config=None):
        flag_values = flags.FlagValues()
        values.let_none_unset_fields()
        argv = ["program", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        holder = config_flags.DEFINE_config_dict(
            "config",
            config or training.default_config(),
            flag_values=flag_values,
            sys_argv=argv,
        )
        flag_values(argv)
        return holder.value

    return parse_arguments


@pytest.mark.parametrize("field", _UNSET)
def test_none_unsets_every_field_that_may_be_unset(parse, field):
    value = {"weights": "w.npz", "evaluation.every": "5 steps"}.get(field, "1")
    assert dict(flatten(parse(f"--config.{field}={value}")))[field] is not None
    for none in ("None", " None "):
        config = parse(f"--config.{field}={value}", f"--config.{field}={none}")
        assert dict(flatten(config))[field] is None
    validate(config)


def test_none_may_follow_a_space(parse):
    assert parse("--config.weights", "None", "--config.steps", "None").weights is None


_SET = [field for field, value in flatten(training.default_config()) if value is not None]


def test_fields_of_further_injections_are_set_as_those_of_the_first(parse):
    config = training.default_config()
    config.noise.others.early = training.noise_config(name="gaussian", strength=1.0)
    flags_of_both = [
        f"--config.{section}.{field}"
        for section in ("noise", "noise.others.early")
        for field in ("preset=None", "layer=6,8", "strength=0.5", "train=false")
    ]
    config = parse(*flags_of_both, config=config)
    for section in (config.noise, config.noise.others.early):
        assert (section.layer, section.strength, section.train) == ("6,8", 0.5, False)
    assert config.noise.others.early.name == "gaussian"
    validate(config)


@pytest.mark.parametrize("text", ["6,8", "(6, 8)", "[6,8]", "6, 8"])
def test_layers_may_be_written_as_a_tuple(parse, text):
    config = parse("--config.noise.preset=paper_vit", f"--config.noise.layer={text}")
    (injection,) = noise.injections_from_config(config.noise)
    assert injection.layer == (6, 8)
    config = parse("--config.noise.preset=paper_vit", "--config.noise.layer=(6,)")
    assert noise.injections_from_config(config.noise)[0].layer == 6


@pytest.mark.parametrize("field", _SET)
def test_none_is_refused_by_name_for_all_others(parse, field):
    with pytest.raises((ValueError, flags.Error), match=rf"{field}=(\[)?None"):
        validate(parse(f"--config.{field}=None"))


@pytest.mark.parametrize("field", ["steps", "ema_decay", "noise.train", "data.num_threads"])
def test_a_lowercase_none_unsets_fields_that_are_not_text(parse, field):
    assert dict(flatten(parse(f"--config.{field}=none")))[field] is None


def test_none_stays_a_transform_and_the_name_of_no_noise(parse):
    config = parse("--config.data.train_transform=none", "--config.noise.name=none")
    assert (config.data.train_transform, config.noise.name) == ("none", "none")


@pytest.mark.parametrize("field", ["weights", "data.data_dir"])
@pytest.mark.parametrize("path", ["", " ", "none", "a\0b"])
def test_an_invalid_path_is_refused(parse, field, path):
    with pytest.raises(ValueError, match=f"^{field}=.*is not a path: give one.* or None to leave"):
        validate(parse(f"--config.{field}={path}"))


def test_a_model_takes_a_pair_for_the_size_of_images(parse):
    for text in ("(32,16)", "[32,16]", "32,16"):
        config = parse(f"--config.model.image_size={text}", "--config.model.patch_size=8")
        assert tuple(config.model.image_size) == (32, 16)
    assert parse("--config.model.image_size=32").model.image_size == 32


@pytest.mark.parametrize("text", ["(8,8)", "[8]", "eight", ""])
def test_other_fields_refuse_pairs(parse, text):
    with pytest.raises(flags.IllegalFlagValueError, match=r"config.model.patch_size=.*whole numb"):
        parse(f"--config.model.patch_size={text}")


def _flags(*arguments):
    flag_values = flags.FlagValues()
    flags.DEFINE_string("out", None, "", flag_values=flag_values)
    flags.DEFINE_list("seeds", None, "", flag_values=flag_values)
    flags.DEFINE_string("workdir", None, "", flag_values=flag_values)
    flags.mark_flag_as_required("workdir", flag_values)
    flag_values(["program", *arguments])
    values.unset_flags(flag_values)
    return flag_values


def test_none_unsets_other_flags():
    parsed = _flags("--out=None", "--seeds=None", "--workdir=DIR")
    assert (parsed.out, parsed.seeds, parsed.workdir) == (None, None, "DIR")
    assert not parsed["out"].present


def test_none_is_not_a_work_directory():
    with pytest.raises(flags.IllegalFlagValueError, match="--workdir"):
        _flags("--workdir=None")


@pytest.mark.parametrize("name", ["workdir", "data_dir", "manual_dir", "out"])
@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_a_blank_path_is_not_the_current_directory(name, value):
    flag_values = flags.FlagValues()
    flags.DEFINE_string(name, None, "A path.", flag_values=flag_values)
    flag_values(["program"])
    values.unset_flags(flag_values)
    flag_values(["program", f"--{name}={value}"])
    with pytest.raises(flags.IllegalFlagValueError, match=f"--{name}=.*: give a path"):
        values.unset_flags(flag_values)
