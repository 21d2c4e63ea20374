"""How backbones are made: what each option does to each kind of them, what is refused, what checkpoints remember."""

import dataclasses
from functools import partial

import lightning as L
import pytest
import timm
import torch
import transformers as tf
from torch import nn

from asym_lightning.adapters import AdapterConfig
from asym_lightning.data import DigitsDataModule, LoaderOptions
from asym_lightning.modules import (
    BackboneOptions,
    ImageClassifier,
    InstructionTuner,
    Summarizer,
    TextClassifier,
    WarmupSchedule,
)
from asym_lightning.modules.backbone_options import OF_NAMED_BACKBONES, enable_gradient_checkpointing
from asym_lightning.modules.language.decoding import Decoding
from tests.language_models import tiny_llama
from tests.text_stand_ins import write_tiny_bert

ADAPTER = AdapterConfig(rank=2, dropout=0.1)


def images(**options):
    return ImageClassifier("vit_digits", 10, ADAPTER, backbone_options=BackboneOptions(**options))


def texts(folder, **options):
    bert = str(write_tiny_bert(folder / "bert"))
    return TextClassifier(bert, label_names=["a", "b"], adapter=ADAPTER, backbone_options=BackboneOptions(**options))


def image_batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 1, 8, 8, generator=generator), torch.arange(6)


def text_batch():
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 8, 3]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1])}


def fitted(folder, module, **options):
    defaults = {"max_steps": 3, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(default_root_dir=folder, accelerator="cpu", **{**defaults, **options})
    trainer.fit(module, DigitsDataModule(num_train=100, loader=LoaderOptions(batch_size=20)))
    return trainer


# Gradient checkpointing


def step_of(module, batch):
    """Loss, gradients and bytes kept for the backward pass, of a step whose dropout is the same each time."""
    torch.manual_seed(0)
    module.configure_model()
    module.train()
    parameters = {tensor.untyped_storage().data_ptr() for tensor in module.parameters()}
    kept = {}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = module.step(batch).loss
    saved = sum(kept.values())
    loss.backward()
    return loss, {name: p.grad for name, p in module.named_parameters() if p.requires_grad}, saved


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_gradient_checkpointing_changes_nothing_but_memory(kind, tmp_path):
    make, batch = (images, image_batch()) if kind == "timm" else (partial(texts, tmp_path), text_batch())
    (loss, gradients, saved), (same_loss, same_gradients, less) = (
        step_of(make(gradient_checkpointing=flag), batch) for flag in (False, True)
    )
    torch.testing.assert_close(same_loss, loss)
    torch.testing.assert_close(same_gradients, gradients)
    assert any(gradient.abs().max() > 0 for name, gradient in gradients.items() if "factor_B" in name)
    assert less < 0.7 * saved


class Unwilling(nn.Module):
    def set_grad_checkpointing(self, enable=True):
        assert not enable, "gradient checkpointing not supported"


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(1, 1), "is not known to Linear, which is neither of transformers nor of timm"),
        (Unwilling(), "is not known to Unwilling: gradient checkpointing not supported"),
        (
            tf.ResNetModel(tf.ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])),
            "is not known to ResNetModel",
        ),
    ],
    ids=["neither", "timm", "transformers"],
)
def test_models_without_gradient_checkpointing_are_refused_by_name(model, message):
    with pytest.raises(ValueError, match=f"^`backbone_options.gradient_checkpointing` {message}"):
        enable_gradient_checkpointing(model)


# Precision


def dtypes(module):
    """Dtypes of what is frozen and of what trains."""
    frozen = {p.dtype for p in module.parameters() if not p.requires_grad and p.is_floating_point()}
    return frozen, {p.dtype for p in module.parameters() if p.requires_grad}


@pytest.mark.parametrize("kind", ["timm", "transformers"])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_narrow_weights_are_under_adapters_and_heads_in_float32(kind, precision, tmp_path):
    adapter = dataclasses.replace(ADAPTER, scheme="hB_zero_hA_rand")  # else a frozen A is in float32 too
    module = images(precision=precision) if kind == "timm" else texts(tmp_path, precision=precision)
    module.adapter = adapter
    module.configure_model()
    assert dtypes(module) == ({getattr(torch, precision)}, {torch.float32})


@pytest.mark.parametrize("arguments", [{"adapter": ADAPTER}, {"train_backbone": True}], ids=["adapter", "full"])
def test_narrow_images_are_trained_on_in_a_plain_run(arguments, tmp_path):
    options = BackboneOptions(precision="bfloat16")
    module = ImageClassifier("vit_digits", 10, **arguments, backbone_options=options)
    run = fitted(tmp_path, module)
    assert run.global_step == 3 and torch.isfinite(run.callback_metrics["train/loss"])
    assert module.backbone.patch_embed.proj.weight.dtype == torch.bfloat16


def test_float32_gives_way_to_a_wider_run(tmp_path):
    module = images()
    fitted(tmp_path, module, precision="64-true")
    assert {p.dtype for p in module.parameters()} == {torch.float64}


# Weights and architecture


@pytest.mark.parametrize("kind", ["timm", "transformers"])
def test_random_weights_differ_from_the_pretrained_ones_in_the_file(kind, tmp_path):
    make = images if kind == "timm" else partial(texts, tmp_path)
    modules = [make(), make(pretrained=False)]
    for module in modules:
        module.configure_model()
    name = "patch_embed.proj.weight" if kind == "timm" else "bert.embeddings.word_embeddings.weight"
    pretrained, random = (module.backbone.state_dict()[name] for module in modules)
    assert not torch.equal(pretrained, random)


@pytest.mark.parametrize(
    ("name", "value"), [("pretrained", False), ("model_args", {"img_size": 16}), ("precision", "bfloat16")]
)
def test_a_module_that_is_handed_over_is_made_already(name, value):
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    message = rf"^`backbone_options.{name}` is for a `backbone` that goes by its name: the one given is a module"
    with pytest.raises(ValueError, match=message):
        ImageClassifier(model, 2, backbone_options=BackboneOptions(**{name: value}))
    assert name in OF_NAMED_BACKBONES


def test_what_is_done_to_a_backbone_is_done_to_a_module_that_is_handed_over():
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    module = ImageClassifier(model, 2, ADAPTER, backbone_options=BackboneOptions(gradient_checkpointing=True))
    module.configure_model()
    assert module.backbone.grad_checkpointing


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"precision": "bf16"}, ValueError, "`precision` must be one of float32, .*: did you mean bfloat16?"),
        ({"quantization": "int4"}, ValueError, "`quantization` must be one of nf4, int8 or null, not 'int4': did you"),
        ({"pretrained": "no"}, TypeError, "`pretrained` must be true or false, not 'no'"),
        ({"gradient_checkpointing": None}, TypeError, "`gradient_checkpointing` must be true or false, not null"),
        ({"model_args": ["img_size"]}, TypeError, "`model_args` must be a mapping or null, not"),
    ],
)
def test_wrong_values_are_refused_by_name(options, error, message):
    with pytest.raises(error, match=message):
        BackboneOptions(**options)


# Checkpoints


def test_every_option_object_comes_back_from_a_checkpoint(tmp_path):
    options = BackboneOptions(gradient_checkpointing=True, precision="bfloat16")
    module = ImageClassifier("vit_digits", 10, ADAPTER, scheduler=WarmupSchedule(0.1), backbone_options=options)
    fitted(tmp_path, module).save_checkpoint(tmp_path / "x.ckpt")
    saved = torch.load(tmp_path / "x.ckpt", weights_only=True)["hyper_parameters"]
    assert saved["backbone_options"] == dataclasses.asdict(options)
    loaded = ImageClassifier.load_from_checkpoint(tmp_path / "x.ckpt", weights_only=True)
    assert (loaded.backbone_options, loaded.adapter, loaded.scheduler) == (options, ADAPTER, WarmupSchedule(0.1))
    assert loaded.backbone.patch_embed.proj.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("make", [Summarizer, InstructionTuner])
def test_decoding_comes_back_from_its_plain_form(make):
    plain = dataclasses.asdict(Decoding(num_beams=3))
    assert make("a/backbone", decoding=plain).decoding == Decoding(num_beams=3)
    assert make("a/backbone").decoding == Decoding()
    with pytest.raises(ValueError, match=r"Decoding has no option 'num_beam': did you mean num_beams\?"):
        make("a/backbone", decoding={"num_beam": 3})


@pytest.fixture
def old_checkpoint(tmp_path):
    """A checkpoint of before the options were apart, which stand in its hyperparameters by their own names."""
    module = images(gradient_checkpointing=True)
    fitted(tmp_path, module).save_checkpoint(tmp_path / "new.ckpt")
    checkpoint = torch.load(tmp_path / "new.ckpt", weights_only=True)
    checkpoint["hyper_parameters"] |= checkpoint["hyper_parameters"].pop("backbone_options")
    torch.save(checkpoint, tmp_path / "old.ckpt")
    return tmp_path / "old.ckpt"


def test_an_old_checkpoint_says_which_options_to_give(old_checkpoint, tmp_path):
    name = "gradient_checkpointing"
    message = rf"^the checkpoint was written with `{name}: True`, which is now `backbone_options.{name}`: give"
    with pytest.raises(ValueError, match=message):
        ImageClassifier.load_from_checkpoint(old_checkpoint, weights_only=True)
    options = BackboneOptions(gradient_checkpointing=True)
    loaded = ImageClassifier.load_from_checkpoint(old_checkpoint, weights_only=True, backbone_options=options)
    assert loaded.backbone_options == options


def test_a_run_goes_on_from_an_old_checkpoint_as_its_config_says(old_checkpoint, tmp_path):
    module = images()
    run = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", max_steps=5, logger=False, enable_progress_bar=False)
    run.fit(module, DigitsDataModule(num_train=100), ckpt_path=old_checkpoint, weights_only=True)
    assert run.global_step == 5


def test_a_decoder_is_asked_for_its_options_by_name():
    with pytest.raises(ValueError, match=r"BackboneOptions has no option 'pretraind': did you mean pretrained\?"):
        InstructionTuner("a/backbone", backbone_options={"pretraind": False})
    assert InstructionTuner(tiny_llama(60)).backbone_options == BackboneOptions()
