import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf
import yaml

from asym_lightning.cli import main
from tests.audio_stand_ins import tiny_wav2vec2_config, tiny_whisper_config
from tests.picture_stand_ins import llava_processor, tiny_llava
from tests.text_stand_ins import tiny_bert_config

QUICKSTART = "configs/quickstart.yaml"


def run(capsys, *options):
    code = main(["estimate", *options])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def numbers(capsys, *options):
    code, out, err = run(capsys, *options, "--format", "json")
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def llama(tmp_path):
    """A folder with a config.json and nothing else."""
    folder = tmp_path / "llama"
    tf.LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256,
    ).save_pretrained(folder)  # fmt: skip
    return folder


def test_quickstart_equals_its_run(capsys, tmp_path):
    found = numbers(capsys, "--config", QUICKSTART)
    assert found["trained"] == 14794 and found["parameters"] == 692842
    assert found["strategy"] == "single" and found["communication"] == {}
    options = [
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=2",
        "--trainer.enable_progress_bar=false",
        "--test_after_fit=false",
    ]
    logger = f"--trainer.logger.init_args.save_dir={tmp_path}"
    assert main(["fit", "--config", QUICKSTART, logger, *options]) == 0
    (adapter,) = tmp_path.glob("**/adapter")
    (checkpoint,) = tmp_path.glob("**/*.ckpt")
    # Names of classes are not known before, and a sampled number of the backbone has as many digits as it has.
    written = sum(file.stat().st_size for file in adapter.iterdir() if file.name != "label_names.json")
    assert found["files"]["adapter directory"] == pytest.approx(written, rel=0.01)
    assert found["files"]["checkpoint"] == pytest.approx(checkpoint.stat().st_size, rel=0.1)


def test_compact_directory_is_what_is_written(capsys, tmp_path):
    from asym_lightning.adapters import save_adapters
    from asym_lightning.cli.built_model import build_model

    found = numbers(capsys, "--config", QUICKSTART)
    save_adapters(build_model(["--config", QUICKSTART]).backbone, tmp_path / "compact", include_frozen=False)
    written = sum(file.stat().st_size for file in (tmp_path / "compact").iterdir())
    # Checksums have as many digits as they happen to have.
    assert found["files"]["adapter directory, compact"] == pytest.approx(written, rel=0.01)


def test_overlays_and_overrides_count(capsys):
    lora = numbers(capsys, "--config", QUICKSTART, "--config", "configs/adapters/lora_r8.yaml")
    assert lora["trained"] == 19402
    larger = numbers(capsys, "--config", QUICKSTART, "--model.adapter.rank", "16", "--batch-size", "100")
    assert larger["trained"] > 14794
    assert larger["batch"] == 2 * lora["batch"]
    assert larger["activations"] == pytest.approx(2 * numbers(capsys, "--config", QUICKSTART)["activations"], rel=0.1)


def test_folder_with_a_config_alone_is_enough(capsys, llama, tmp_path):
    options = ["--config", "configs/instruction/alpaca_llama2_7b.yaml", "--model.backbone", str(llama)]
    shape = ["--batch-size", "2", "--sequence-length", "64"]
    two, many = (numbers(capsys, *options, *shape, "--strategy", "fsdp2", "--devices", str(n)) for n in (2, 1024))
    assert many["weights"] < two["weights"]
    assert set(two["communication"]) == {"all-gather", "reduce-scatter"}
    assert two["activations"] == many["activations"]
    ddp = numbers(capsys, *options, *shape, "--strategy", "ddp", "--devices", "4")
    assert ddp["communication"] == {"all-reduce": ddp["gradients"]} and ddp["buckets"] == ddp["gradients"]
    out = tmp_path / "new" / "estimate.json"
    code, table, _ = run(capsys, *options, *shape, "--devices", "1", "--memory", "1kB", "--out", str(out))
    assert code == 0 and "does not fit into 1.00 kB" in table and "exact" in table and "estimate" in table
    assert json.loads(out.read_text())["fits"] is False


TINY_LLAMA = tf.LlamaConfig(
    vocab_size=99, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
)
YOLOS = tf.YolosConfig(
    hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, image_size=[32, 32], patch_size=8,
    num_detection_tokens=2,
)  # fmt: skip
BART = tf.BartConfig(
    vocab_size=99, d_model=32, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64, decoder_ffn_dim=64,
    encoder_attention_heads=2, decoder_attention_heads=2,
)  # fmt: skip
BERT, TIMM = tiny_bert_config(num_attention_heads=2), ["--model.backbone", "vit_digits"]
# By config: what stands in for its backbone, or options.
STAND_INS = {
    "audio/keyword_spotting": tiny_wav2vec2_config(),
    "audio/librispeech_100h": tiny_wav2vec2_config(architectures=["Wav2Vec2ForCTC"]),
    "audio/whisper_small": tiny_whisper_config(),
    "detection/coco": YOLOS,
    "domainbed/pacs": TIMM,
    "embeddings/nli_stsb": BERT,
    "glue/rte": BERT,
    "instruction/alpaca_llama2_7b": TINY_LLAMA,
    "labels/go_emotions": BERT,
    "labels/voc2007": TIMM,
    "mmlu/llama2_7b": TINY_LLAMA,
    "preference/zephyr_7b": TINY_LLAMA,
    "questions/squad": BERT,
    "segmentation/voc2012": [*TIMM, "--model.backbone_options.model_args", "{img_size: 8}"],
    "summarization/xsum": BART,
    "tokens/conll2003": BERT,
    "values/utkface": TIMM,
    "vision_language/llava_1_5_7b": lambda: tiny_llava(llava_processor().tokenizer).config,
}
QUICK = ("audio/librispeech_100h", "audio/whisper_small", "domainbed/pacs", "glue/rte", "summarization/xsum",
         "vision_language/llava_1_5_7b")  # fmt: skip
WHY_NOT = {
    "detection/coco": "the loss of objects matches boxes by their numbers, and an estimate has none.",
    "mmlu/llama2_7b": "nothing trains: the backbone is frozen",
    "vision_language/llava_1_5_7b": "how many tokens and numbers a picture becomes is known to the processor alone.",
}


def test_every_folder_of_configs_has_a_stand_in():
    folders = {path.parent.name for path in Path("configs").glob("*/*.yaml")}
    assert {task.partition("/")[0] for task in STAND_INS} == folders - {"adapters", "callbacks", "strategies"}
    assert {f"audio/{path.stem}" for path in Path("configs/audio").glob("*.yaml")} <= set(STAND_INS)


@pytest.mark.parametrize(
    "task", [pytest.param(task, marks=[] if task in QUICK else pytest.mark.slow) for task in STAND_INS]
)
def test_every_kind_of_task_is_estimated_or_says_why_not(capsys, tmp_path, task):
    options = ["--config", f"configs/{task}.yaml", "--devices", "1", "--batch-size", "2"]
    options += ["--sequence-length", "12"]
    if isinstance(STAND_INS[task], list):
        options += [*STAND_INS[task], "--image-size", "8"]
    else:
        config = STAND_INS[task]() if callable(STAND_INS[task]) else STAND_INS[task]
        config.save_pretrained(tmp_path)
        options += ["--model.backbone", str(tmp_path)]
    if task in WHY_NOT:
        code, _, err = run(capsys, *options)
        assert code == 1 and WHY_NOT[task] in err and len(err.strip().splitlines()) == 1
        return
    found = numbers(capsys, *options)
    assert found["peak"] > found["weights"] + found["activations"] > 0


def test_precision_counts(capsys, llama):
    options = [
        "--config", "configs/instruction/alpaca_llama2_7b.yaml", "--model.backbone", str(llama), "--devices", "1",
        "--batch-size", "2", "--sequence-length", "64", "--model.backbone_options.precision", "float32",
    ]  # fmt: skip
    whole = numbers(capsys, *options, "--trainer.precision", "32-true")
    half = numbers(capsys, *options, "--trainer.precision", "bf16-true")
    assert half["gradients"] == whole["gradients"] and half["optimizer_state"] == whole["optimizer_state"]
    assert half["weights"] < 0.7 * whole["weights"]
    assert half["activations"] < 0.7 * whole["activations"]


def test_quantised_weights_count_as_they_are_kept(capsys):
    pytest.importorskip("bitsandbytes")
    options = ["--config", QUICKSTART, "--model.backbone_options.quantization", "nf4"]
    whole, few_bits = numbers(capsys, *options[:2]), numbers(capsys, *options)
    assert few_bits["weights"] < 0.2 * whole["weights"]
    assert all(few_bits[name] == whole[name] for name in ("parameters", "trained", "activations"))
    assert few_bits["files"].pop("checkpoint") == whole["files"].pop("checkpoint")
    for name, size in few_bits["files"].items():  # which lack the sample of dense weights
        assert 0.98 * whole["files"][name] < size < whole["files"][name]
    assert few_bits["peak"] - few_bits["weights"] == whole["peak"] - whole["weights"]
    code, _, err = run(capsys, *options, "--strategy", "fsdp2", "--devices", "2")
    assert code != 0 and err == "error: `strategy` 'fsdp2' can't shard a quantised backbone: choose single or ddp.\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--strategy", "fsdp3"],
            "`strategy` must be one of single, ddp, fsdp, fsdp2, not 'fsdp3': did you mean fsdp?",
        ),
        (["--devices", "0"], "`devices` must be at least 1, not 0."),
        (["--strategy", "single", "--devices", "2"], "is for one device, not 2"),
        (["--memory", "much"], "`memory` must be a size such as 80GB or 40GiB, not 'much'."),
        (["--batch-size", "0"], "`batch_size` must be at least 1"),
        (["--sequence-length", "0"], "`sequence_length` must be at least 1, not 0."),
        (["--trainer.precision", "transformer-engine"], "is not estimated"),
        (["--trainer.devices", "auto", "--trainer.strategy", "ddp"], "depends on the machine: give `--devices`."),
        (["--model.backbone", "vit_digit"], "did you mean vit_digits"),
        (["--model.adapter.ranks", "4"], "ranks"),
    ],
)
def test_errors_are_one_sentence(capsys, options, message):
    code, _, err = run(capsys, "--config", QUICKSTART, *options)
    assert code != 0
    assert message in err and err.startswith("error: ") and len(err.strip().splitlines()) == 1


def test_batch_size_that_is_known_from_nowhere_is_asked_for(capsys, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text("model: {class_path: ImageClassifier, backbone: vit_digits, num_classes: 10}\n")
    code, _, err = run(capsys, "--config", str(config))
    assert code != 0 and "sets no `loader.batch_size`: give `--batch-size`." in err


def test_config_is_asked_for(capsys):
    code, _, err = run(capsys)
    assert code != 0 and "needs `--config`" in err


def test_module_of_ones_own_makes_its_own_batch(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from torchmetrics import MetricCollection\n"
        "from asym_lightning.modules import AdapterModule, StepOutput\n"
        "class Mine(AdapterModule):\n"
        "    def build_backbone(self, source):\n        return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 1))\n"
        "    def build_metrics(self):\n        return MetricCollection({})\n"
        "    def step(self, batch):\n        y = self(batch)\n        return StepOutput(y.mean(), y, y)\n"
        "    def example_batch(self, shape):\n        return torch.zeros(shape.known('size'), 8)\n"
    )
    model = {"class_path": "mine.Mine", "backbone": "any", "adapter": {"rank": 2, "targets": ["0"], "heads": []}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"model": model, "trainer": {"devices": 1}}))
    command = [sys.executable, "-m", "asym_lightning", "estimate", "--config", "config.yaml", "--batch-size", "3"]
    result = subprocess.run([*command, "--format", "json"], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["batch"] == 3 * 8 * torch.float32.itemsize
