"""Adapters of layers that an earlier version of transformers called otherwise."""

import json

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from asym_lightning.adapters import adapter_layers, load_adapters
from tests.adapters.models import hf_inputs, hf_model, perturb

pytestmark = pytest.mark.skipif(transformers.__version__ < "5", reason="here layers have their former names")
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
OLD = {
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.v_proj": "attention.attention.value",
    "mlp.fc1": "intermediate.dense",
}


def as_of_old(directory):
    """Give a file's layers the names that transformers 4 had for them."""

    def old(name):
        for new, former in OLD.items():
            name = name.replace(new, former)
        return name

    save_file({old(name): t for name, t in load_file(directory / TENSORS).items()}, directory / TENSORS)
    written = json.loads((directory / CONFIG).read_text())
    written["target_modules"] = ["query", "value", "intermediate.dense"]
    written["alpha_pattern"] = {"attention.value": 9}
    (directory / CONFIG).write_text(json.dumps(written))


def test_a_file_of_peft_with_old_names_loads_into_the_layers_of_new_ones(tmp_path):
    model, inputs = hf_model("vit"), hf_inputs("vit")
    assert all(any(new in name for name, _ in model.named_modules()) for new in ("vit.layers.0", "mlp.fc1"))
    config = peft.LoraConfig(
        r=2, lora_alpha=6, target_modules=["q_proj", "v_proj", "fc1"], alpha_pattern={"v_proj": 9},
        modules_to_save=["classifier"],
    )  # fmt: skip
    theirs = peft.get_peft_model(hf_model("vit"), config).eval()
    perturb(theirs)
    theirs.save_pretrained(tmp_path)
    as_of_old(tmp_path)
    load_adapters(model, tmp_path)
    assert "vit.layers.1.attention.v_proj" in adapter_layers(model)
    torch.testing.assert_close(model(**inputs).logits, theirs(**inputs).logits, rtol=1e-5, atol=1e-5)


def test_names_that_lead_nowhere_are_refused_as_they_stand_in_the_file(tmp_path):
    theirs = peft.get_peft_model(hf_model("vit"), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / TENSORS)
    save_file({name.replace("q_proj", "qq_proj"): t for name, t in tensors.items()}, tmp_path / TENSORS)
    with pytest.raises(ValueError, match=r"'vit.layers.*qq_proj' matches no layer"):
        load_adapters(hf_model("vit"), tmp_path)
