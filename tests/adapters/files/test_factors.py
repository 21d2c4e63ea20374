import peft
import pytest
import torch
from torch import nn

from asym_lightning.adapters import AdapterConfig, adapters_by_name, inject_adapters, save_adapters
from asym_lightning.adapters.files.factors import read_factors
from asym_lightning.analysis import update_spectrum
from asym_lightning.core.tall_matrices import Columns, singular_values
from asym_lightning.modules.images.timm_backbone import create_timm_backbone


def adapted_vit(seed=0, **options):
    model = create_timm_backbone("vit_digits", 10)
    inject_adapters(model, AdapterConfig(rank=4, seed=seed, **options))
    torch.manual_seed(seed)
    for adapter in adapters_by_name(model).values():
        nn.init.normal_(adapter.factor_B)
    return model


@pytest.mark.parametrize("options", [{}, {"targets": ("q", "v")}, {"rank_pattern": {"v": 2}}])
def test_slices_of_a_fused_layer_are_taken_apart(tmp_path, options):
    model = adapted_vit(**options)
    save_adapters(model, tmp_path)
    factors = read_factors(tmp_path)
    adapters = adapters_by_name(model)
    assert factors.keys() == adapters.keys()
    for name, adapter in adapters.items():
        assert torch.equal(factors[name].A, adapter.A)
        # PEFT has one scaling a layer, the first slice's; the ratio of another slice's goes into its B.
        layer = name.rpartition(".")[0]
        first = next(adapter for key, adapter in adapters.items() if key.startswith(layer))
        torch.testing.assert_close(factors[name].B, adapter.B * (adapter.scaling / first.scaling))


def test_a_shared_A_and_a_whole_layer_are_one_pair(tmp_path):
    save_adapters(adapted_vit(share_a=True), tmp_path)
    factors = read_factors(tmp_path)
    assert factors["blocks.0.attn.qkv"].A.shape == (4, 96)
    assert factors["blocks.0.attn.qkv"].B.shape == (288, 4)


def test_spectra_equal_those_of_the_model_up_to_its_scaling(tmp_path):
    model = adapted_vit(scheme="hB_zero_hA_he")
    save_adapters(model, tmp_path)
    factors = read_factors(tmp_path)
    for name, spectrum in update_spectrum(model).items():
        expected = spectrum.update / adapters_by_name(model)[name].scaling
        found = singular_values(Columns.of(factors[name].B), Columns.of(factors[name].A.T))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


def test_compact_directories_have_B_and_a_checksum(tmp_path):
    model = adapted_vit()
    save_adapters(model, tmp_path, include_frozen=False)
    factors = read_factors(tmp_path)["blocks.1.attn.qkv.k"]
    assert factors.A is None
    assert factors.checksum is not None
    assert torch.equal(factors.B, adapters_by_name(model)["blocks.1.attn.qkv.k"].B)


def test_reads_what_peft_writes(tmp_path):
    torch.manual_seed(0)
    host = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    model = peft.get_peft_model(host, peft.LoraConfig(r=2, target_modules=["0"]))
    nn.init.normal_(model.base_model.model[0].lora_B["default"].weight)
    model.save_pretrained(tmp_path)
    factors = read_factors(tmp_path)
    assert list(factors) == ["0"]
    assert torch.equal(factors["0"].A, model.base_model.model[0].lora_A["default"].weight)
    assert torch.equal(factors["0"].B, model.base_model.model[0].lora_B["default"].weight)


def test_what_is_no_adapter_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no adapter: it lacks adapter_config\.json"):
        read_factors(tmp_path)
    save_adapters(adapted_vit(), tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="is damaged"):
        read_factors(tmp_path)
