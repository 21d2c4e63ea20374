"""VisionLanguageTuner: its loss and its answers in three families, and what of them trains."""

import pytest
import torch

from asym_lightning.adapters import AdapterConfig, adapter_layers
from asym_lightning.data import LoaderOptions, VisionLanguageDataModule
from asym_lightning.modules import VisionLanguageTuner
from asym_lightning.modules.batch_shape import BatchShape
from asym_lightning.modules.language.decoding import Decoding
from asym_lightning.modules.language.vision_language_tuner import stacked
from tests.adapters.models import perturb
from tests.picture_stand_ins import (
    idefics_processor,
    llava_processor,
    tiny_idefics,
    tiny_llava,
    tiny_qwen,
    write_questions,
)
from tests.picture_stand_ins import qwen_processor as qwen

FAMILIES = [(tiny_llava, llava_processor), (tiny_qwen, qwen), (tiny_idefics, idefics_processor)]


def made(tmp_path, make, processor, **adapter):
    torch.manual_seed(0)
    file = write_questions(tmp_path / "pictures.jsonl", 3)
    data = VisionLanguageDataModule(file, None, file, processor=processor, loader=LoaderOptions(3, 3))
    data.setup("fit"), data.setup("test")
    config = AdapterConfig(**{"rank": 2, "targets": ["q", "v"], **adapter})
    module = VisionLanguageTuner(make(processor.tokenizer), config, decoding=Decoding(max_new_tokens=4))
    module.tokenizer = processor.tokenizer
    module.configure_model()
    perturb(module.backbone)
    return module.eval(), next(iter(data.test_dataloader()[0]))


@pytest.mark.parametrize(("make", "processor"), FAMILIES, ids=["llava", "qwen2-vl", "idefics3"])
def test_loss_and_answers_are_those_of_the_model_by_itself(tmp_path, make, processor):
    processor = processor()
    module, batch = made(tmp_path, make, processor)
    output = module.step(module.prepared(batch))
    assert output.targets.tolist() == batch["labels"][batch["labels"] >= 0].tolist()
    assert processor.tokenizer.decode(output.targets[:2]).split() == [batch["reference"][0], "</s>"]
    inputs = module.inputs(batch)
    torch.testing.assert_close(output.loss, module.backbone(**inputs, labels=batch["labels"]).loss)
    for name, tensor in inputs.items():  # without its pictures it would say something else
        if name == "pixel_values":
            assert module.backbone(**{**inputs, name: tensor.flip(-1) + 1}, labels=batch["labels"]).loss != output.loss
    length = int(batch["prompt_length"][0])
    first = {name: tensor[:1] for name, tensor in inputs.items() if tensor.shape == batch["input_ids"].shape}
    first = {name: tensor[:, :length] for name, tensor in first.items()}
    pictures = {name: tensors[0] for name, tensors in batch.items() if isinstance(tensors, list) and name not in
                ("source", "reference")}  # fmt: skip
    ids = module.backbone.generate(**first, **pictures, max_new_tokens=4)[0, length:]
    (sample, *_) = module.samples(batch)
    assert sample["response"] == processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert (sample["prompt"], sample["reference"]) == (batch["source"][0], batch["reference"][0])


def test_towers_projector_and_language_model_are_told_apart(tmp_path):
    processor = llava_processor()
    module, _ = made(tmp_path, tiny_llava, processor, targets=["towers"])
    assert all(name.startswith("model.vision_tower.") for name in adapter_layers(module.backbone))
    assert len(adapter_layers(module.backbone)) == 2 * 6
    module, _ = made(tmp_path, tiny_llava, processor, targets=["projector"])
    names = [f"model.multi_modal_projector.linear_{number}" for number in (1, 2)]
    assert list(adapter_layers(module.backbone)) == names
    module, _ = made(tmp_path, tiny_llava, processor, exclude=["vision_tower"], heads=["multi_modal_projector"])
    assert all(name.startswith("model.language_model.") for name in adapter_layers(module.backbone))
    trained = {n for n, p in module.backbone.named_parameters() if p.requires_grad and "factor" not in n}
    assert trained == {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    qwen_s, _ = made(tmp_path, tiny_qwen, qwen(), targets=["towers"])
    assert all(".visual." in name and ".merger." not in name for name in adapter_layers(qwen_s.backbone))


def test_pictures_of_rows_that_differ_are_padded():
    found = stacked([torch.ones(1, 2, 3), torch.ones(1, 1, 3)])
    assert found.shape == (2, 2, 3) and found[0].all() and found[1, 0].all() and not found[1, 1].any()


def test_what_a_picture_becomes_is_known_to_the_processor_alone(tmp_path):
    module, _ = made(tmp_path, tiny_llava, llava_processor())
    with pytest.raises(ValueError, match="is known to the processor alone"):
        module.example_batch(BatchShape(size=1, length=4))
