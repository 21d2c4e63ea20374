import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from asym_lightning.adapters import AdapterConfig, inject_adapters, load_adapters, save_adapters
from asym_lightning.adapters.files.directory import (
    CONFIG_FILE,
    METADATA_KEY,
    TENSOR_FILE,
    is_adapter,
    read_adapter,
    write_directory,
)
from asym_lightning.adapters.files.factors import read_factors
from asym_lightning.adapters.files.save import adapter_contents


def adapted(rank=2):
    model = nn.Sequential(nn.Linear(6, 4))
    inject_adapters(model, AdapterConfig(rank=rank, targets=["0"]))
    return model


def rewrite(directory, change):
    """Apply a change to what we wrote beside PEFT's layout."""
    with safe_open(directory / TENSOR_FILE, "pt") as file:
        header = file.metadata()
    metadata = json.loads(header[METADATA_KEY])
    change(metadata)
    save_file(load_file(directory / TENSOR_FILE), directory / TENSOR_FILE, {METADATA_KEY: json.dumps(metadata)})


def test_the_adapter_of_a_run_is_found(tmp_path):
    model = adapted()
    save_adapters(model, tmp_path / "adapter")
    saved = read_adapter(tmp_path)
    assert saved.path == tmp_path / "adapter"
    assert saved.config == model[0].adapters.config.to_dict()
    assert saved.ranks == {"0.all": 2}
    assert list(saved.factors) == ["0.lora_A", "0.lora_B"] and not saved.is_compact
    fresh = nn.Sequential(nn.Linear(6, 4))
    load_adapters(fresh, tmp_path)
    assert torch.equal(fresh[0].adapters["all"].A, model[0].adapters["all"].A)


def test_a_directory_with_one_of_the_files_was_meant_for_an_adapter(tmp_path):
    assert not is_adapter(tmp_path)
    (tmp_path / CONFIG_FILE).touch()
    assert is_adapter(tmp_path)


@pytest.mark.parametrize("part", ["config", "ranks"])
def test_metadata_without_its_parts_is_damage(part, tmp_path):
    save_adapters(adapted(), tmp_path)
    rewrite(tmp_path, lambda metadata: metadata.pop(part))
    with pytest.raises(ValueError, match=r"adapter_model.safetensors` is damaged: .* holds no config and ranks"):
        read_adapter(tmp_path)


def test_compact_config_without_its_metadata_is_damage(tmp_path):
    save_adapters(adapted(), tmp_path, include_frozen=False)
    config = json.loads((tmp_path / CONFIG_FILE).read_text())
    del config[METADATA_KEY]
    (tmp_path / CONFIG_FILE).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"adapter_config.json` is damaged: .* holds no config and ranks"):
        read_adapter(tmp_path)


def test_an_option_of_a_later_version_is_named(tmp_path):
    save_adapters(adapted(), tmp_path)
    rewrite(tmp_path, lambda metadata: metadata["config"].update(colour="red"))
    with pytest.raises(ValueError, match="unknown option `colour`; was it written by a later version"):
        load_adapters(nn.Sequential(nn.Linear(6, 4)), tmp_path)


@pytest.mark.parametrize("factor", ["A", "B"])
def test_a_report_refuses_what_lacks_a_factor(factor, tmp_path):
    save_adapters(adapted(), tmp_path)
    contents = adapter_contents(adapted())
    del contents.tensors[f"base_model.model.0.lora_{factor}.weight"]
    write_directory(tmp_path, contents)
    with pytest.raises(ValueError, match=f"is damaged: it lacks `0.lora_{factor}`"):
        read_factors(tmp_path)


def test_what_a_killed_save_has_left_goes_with_the_next(tmp_path):
    save_adapters(adapted(), tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / ".adapter_config.json.0a1b2c3d.saving").touch()
    save_adapters(adapted(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == names
