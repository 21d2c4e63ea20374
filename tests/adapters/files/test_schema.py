"""What is no adapter directory is refused before anything is done with it; benchmarks/malformed has the whole range."""

import pytest
import safetensors
from packaging.version import Version

from asym_lightning.adapters.files.directory import read_adapter
from asym_lightning.adapters.files.schema import check_peft_config
from benchmarks.malformed.adapters import BAD_PATTERNS, FORMS, READERS, named_cases, sound
from benchmarks.malformed.judge import judge

NAMED = {case.name: case for case in named_cases()}


@pytest.mark.parametrize("form", FORMS)
def test_a_sound_directory_is_read_by_all(form, tmp_path):
    sound(form).write(tmp_path)
    for read in READERS.values():
        read(tmp_path)


@pytest.mark.parametrize("name", NAMED)
def test_what_was_once_accepted_or_ended_badly_is_refused(name):
    if name.endswith("is complex") and Version(safetensors.__version__) < Version("0.7"):
        pytest.skip("this safetensors writes no complex numbers")
    verdict = judge("adapters", NAMED[name])
    assert verdict.is_good, f"{verdict.kind}: {verdict.message}"


@pytest.mark.parametrize(
    "pattern",
    ["query", r"layer\.3\.query", r".*\.layers\.\d+\.self_attn\.(q|k|v|o)_proj", "^model.h.1", "[0-9]+.(?:a|b)"],
)
def test_patterns_as_peft_writes_them_pass(pattern, tmp_path):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "alpha_pattern": {pattern: 4}}
    check_peft_config(config, tmp_path)


@pytest.mark.parametrize("pattern", BAD_PATTERNS)
def test_patterns_that_are_none_or_may_take_for_ever_are_refused(pattern, tmp_path):
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 3, "rank_pattern": {pattern: 4}}
    with pytest.raises(ValueError, match="`rank_pattern` has the key"):
        check_peft_config(config, tmp_path)


def test_a_rank_that_no_factor_has_is_refused(tmp_path):
    directory = sound("full")
    directory.metadata["ranks"]["one.all"] = 3
    directory.write(tmp_path)
    with pytest.raises(ValueError, match=r"`one.all` should have rank 3, but B of `one` has 2 columns"):
        read_adapter(tmp_path)
