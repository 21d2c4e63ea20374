import csv
import json
from functools import partial

import pytest
import torch
import transformers as tf
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping

from asym_lightning.adapters import AdapterConfig, adapter_layers
from asym_lightning.data import GLUEDataModule, LoaderOptions, TextFilesDataModule
from asym_lightning.modules import BackboneOptions, TextClassifier
from asym_lightning.modules.heads.headed_backbone import create_headed_backbone
from tests.text_stand_ins import tiny_bert_config, word_pieces, write_glue_task, write_tiny_bert

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
ADAM = partial(torch.optim.AdamW, lr=0.02, weight_decay=0.0)


@pytest.fixture(autouse=True)
def seed():
    seed_everything(0, verbose=False)


@pytest.fixture
def bert(tmp_path):
    return str(write_tiny_bert(tmp_path / "bert"))


@pytest.fixture
def glue(tmp_path, bert):
    def make(task, **options):
        folder = write_glue_task(tmp_path / "glue", task, count=options.pop("count", 12))
        return GLUEDataModule(task, folder, cache_dir=tmp_path / "cache", loader=LoaderOptions(4, 64), **options)

    return make


def trainer(tmp_path, **options):
    return Trainer(accelerator="cpu", **{**QUIET, "max_epochs": 1, "default_root_dir": tmp_path, **options})


def inputs(length=5, rows=3):
    ids = torch.randint(4, 19, (rows, length))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(rows, dtype=torch.long)}


def decoder_config():
    return tf.GPT2Config(vocab_size=19, n_embd=16, n_layer=1, n_head=2, n_positions=40, eos_token_id=3, num_labels=2)


def test_head_and_adapter_train_and_the_rest_stays(tmp_path, bert, glue):
    module = TextClassifier(bert, "rte", adapter=AdapterConfig(rank=2), optimizer=ADAM)
    fit = trainer(tmp_path)
    before = tf.BertModel.from_pretrained(bert).state_dict()
    fit.fit(module, glue("rte"))
    after = module.backbone.bert.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    trained = {name for name, p in module.named_parameters() if p.requires_grad}
    assert all("factor_B" in name or name.startswith("backbone.classifier.") for name in trained)
    assert len(adapter_layers(module.backbone)) == 6


def test_label_names_of_the_data_are_written_to_the_config_and_the_checkpoint(tmp_path, bert, glue):
    module = TextClassifier(bert, "rte", adapter=AdapterConfig(rank=2))
    fit = trainer(tmp_path, max_steps=1)
    fit.fit(module, glue("rte"))
    assert module.backbone.config.id2label == {0: "entailment", 1: "not_entailment"}
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = TextClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    again.configure_model()
    assert again.label_names == ["entailment", "not_entailment"]


def test_a_head_that_was_trained_on_the_same_classes_in_another_order_is_kept(tmp_path, bert):
    config = tf.BertConfig.from_pretrained(bert, id2label={0: "contradiction", 1: "neutral", 2: "entailment"})
    config.label2id = {name: number for number, name in config.id2label.items()}
    model = tf.BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "mnli")
    names = ["entailment", "neutral", "contradiction"]
    module = TextClassifier(str(tmp_path / "mnli"), "mnli", names).eval()
    module.configure_model()
    batch = inputs()
    expected = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert torch.allclose(module.logits(batch), expected[:, [2, 1, 0]], atol=1e-6)
    assert module.backbone.config.id2label == config.id2label  # the model's outputs keep their names


def test_a_head_of_other_classes_is_replaced(tmp_path, bert):
    model = tf.BertForSequenceClassification(tf.BertConfig.from_pretrained(bert, num_labels=5))
    model.save_pretrained(tmp_path / "other")
    created = create_headed_backbone(str(tmp_path / "other"), 2, ["no", "yes"])
    assert created.model.config.label2id == {"no": 0, "yes": 1}


@pytest.mark.parametrize("adapter", [AdapterConfig(rank=2), None])
def test_pooler_that_the_checkpoint_lacks_is_trained_with_the_head(tmp_path, bert, glue, adapter):
    tf.BertForMaskedLM(tf.BertConfig.from_pretrained(bert)).save_pretrained(tmp_path / "masked")
    word_pieces().save_pretrained(tmp_path / "masked")
    module, fit = TextClassifier(str(tmp_path / "masked"), "rte", adapter=adapter), trainer(tmp_path, max_steps=1)
    fit.fit(module, glue("rte"))
    trained = {n for n, p in module.backbone.named_parameters() if p.requires_grad and "factor" not in n}
    layers = ("bert.pooler.dense", "classifier")
    assert trained == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    fit.save_checkpoint(tmp_path / "a.ckpt")
    again = TextClassifier.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    assert torch.equal(again.backbone.bert.pooler.dense.weight, module.backbone.bert.pooler.dense.weight)


def test_named_heads_come_before_what_the_checkpoint_lacks(tmp_path, bert):
    tf.BertForMaskedLM(tf.BertConfig.from_pretrained(bert)).save_pretrained(tmp_path / "masked")
    adapter = AdapterConfig(rank=2, heads=["classifier"])
    module = TextClassifier(str(tmp_path / "masked"), label_names=["no", "yes"], adapter=adapter)
    module.configure_model()
    assert not module.backbone.bert.pooler.dense.weight.requires_grad


def test_weights_of_another_architecture_are_refused(tmp_path, bert):
    other = tf.DistilBertConfig(vocab_size=19, dim=16, n_layers=2, n_heads=2, hidden_dim=16)
    tf.DistilBertModel(other).save_pretrained(tmp_path / "mixed")
    tf.BertConfig.from_pretrained(bert).save_pretrained(tmp_path / "mixed")
    with pytest.raises(ValueError, match=r"mixed' are not those of a BertForSequenceClassification: [\d,]+ of its"):
        create_headed_backbone(str(tmp_path / "mixed"), 2)


def test_decoders_classify_by_the_last_token_whatever_the_padding(tmp_path):
    model = tf.GPT2ForSequenceClassification(decoder_config())
    module = TextClassifier(model, label_names=["a", "b"], adapter=AdapterConfig(rank=2)).eval()
    module.configure_model()
    ids = torch.tensor([[5, 6, 7]])
    padded = torch.cat([ids, torch.full((1, 5), model.config.pad_token_id)], dim=1)
    mask = (torch.arange(8) < 3)[None].long()
    logits = module.logits({"input_ids": ids, "attention_mask": mask[:, :3]})
    assert torch.allclose(module.logits({"input_ids": padded, "attention_mask": mask}), logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["roberta", "distilbert", "gpt2", "llama"])
def test_families_take_a_step_from_a_config_alone(tmp_path, glue, kind):
    size = {"vocab_size": 19, "max_position_embeddings": 40}
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = {
        "roberta": lambda: tf.RobertaConfig(**size, **small, pad_token_id=0),
        "distilbert": lambda: tf.DistilBertConfig(**size, dim=16, n_layers=1, n_heads=2, hidden_dim=16),
        "gpt2": decoder_config,
        "llama": lambda: tf.LlamaConfig(**size, **small, eos_token_id=3, pad_token_id=None),
    }[kind]()
    config.save_pretrained(tmp_path / kind)
    module = TextClassifier(
        str(tmp_path / kind), "rte", adapter=AdapterConfig(rank=2), backbone_options=BackboneOptions(pretrained=False)
    )
    trainer(tmp_path, max_steps=1).fit(module, glue("rte", tokenizer=word_pieces(), max_length=32))


def test_mnlis_sets_have_metrics_of_their_own(tmp_path, bert, glue):
    module = TextClassifier(bert, "mnli", adapter=AdapterConfig(rank=2))
    fit = trainer(tmp_path, max_steps=1)
    data = glue("mnli")
    fit.fit(module, data)
    values = fit.validate(module, data, verbose=False)[0] | fit.test(module, data, verbose=False)[0]
    names = {
        f"{stage}/{set_name}/{metric}"
        for stage in ("val", "test")
        for set_name in ("matched", "mismatched")
        for metric in ("accuracy", "loss")
    }
    assert {name.removesuffix("/dataloader_idx_0") for name in values} == names
    module.eval()
    batches = list(data.val_dataloader()[1])
    right = sum(int((module.logits(batch).argmax(-1) == batch["labels"]).sum()) for batch in batches)
    assert values["val/mismatched/accuracy"] == pytest.approx(right / 12)


def test_regression_learns_scores_and_undefined_pearson_stops_nothing(tmp_path, bert, glue):
    module = TextClassifier(bert, "stsb", optimizer=partial(torch.optim.SGD, lr=0.0))
    module.configure_model()
    torch.nn.init.zeros_(module.backbone.classifier.weight)  # constant predictions
    stop = EarlyStopping("val/pearson", mode="max", check_finite=True, patience=5)
    fit = trainer(tmp_path, max_epochs=2, callbacks=[stop])
    with pytest.warns(UserWarning, match="Pearson correlation is undefined"):
        fit.fit(module, glue("stsb"))
    assert fit.current_epoch == 2 and fit.callback_metrics["val/pearson"] == 0
    batch = inputs() | {"labels": torch.tensor([1.0, 2.0, 3.0])}
    expected = ((module.eval().logits(batch)[:, 0] - batch["labels"]) ** 2).mean()
    assert torch.allclose(module.step(batch).loss, expected)


def test_class_weights_and_smoothing_change_the_training_loss_alone(bert):
    plain, weighted = (
        TextClassifier(
            bert,
            label_names=["a", "b"],
            backbone_options=BackboneOptions(
                model_args={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
            ),
            **options,
        )
        for options in ({}, {"class_weights": [1.0, 3.0], "label_smoothing": 0.1})
    )
    batch = inputs() | {"labels": torch.tensor([0, 1, 1])}
    for module in (plain, weighted):
        seed_everything(0, verbose=False)
        module.configure_model()
    logits = plain.logits(batch)
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], torch.tensor([1.0, 3.0]), label_smoothing=0.1)
    assert torch.allclose(weighted.step(batch).loss, expected)
    assert torch.allclose(weighted.eval().step(batch).loss, plain.eval().step(batch).loss)


def test_predictions_file_holds_ids_labels_and_probabilities_in_the_files_order(tmp_path, bert):
    rows = [{"text": " ".join(["the"] * (7 - i)), "label": "yes", "key": f"k{i}"} for i in range(6)]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = TextFilesDataModule(
        predict=path,
        id_column="key",
        label_names=["no", "yes"],
        loader=LoaderOptions(eval_batch_size=2),
        cache_dir=tmp_path / "cache",
    )
    module = TextClassifier(bert)
    predicted = torch.cat(trainer(tmp_path).predict(module, data))
    with (tmp_path / "predictions.csv").open() as file:
        written = list(csv.DictReader(file))
    assert [row["id"] for row in written] == [f"k{i}" for i in range(6)]
    order = [int(row) for batch in data.predict_dataloader()[0] for row in batch["row"]]
    for row, probabilities in zip(order, predicted.tolist(), strict=True):
        assert [float(written[row][f"probability_{name}"]) for name in ("no", "yes")] == pytest.approx(
            probabilities, abs=1e-6
        )
        assert written[row]["label"] == ("yes" if probabilities[1] > probabilities[0] else "no")


@pytest.mark.parametrize("task_type", ["SEQ_CLS", None])  # without one, its `forward` names no input at all
def test_model_wrapped_by_peft_gets_all_inputs(bert, task_type):
    peft = pytest.importorskip("peft")
    model = tf.BertForSequenceClassification.from_pretrained(bert, num_labels=2)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["query"], task_type=task_type))
    module = TextClassifier(wrapped, label_names=["a", "b"], train_backbone=True)
    module.configure_model()
    assert "token_type_ids" in module._inputs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "rtee"}, r"`task` must be one of classification, .*, not 'rtee': did you mean rte\?"),
        ({"label_smoothing": 1.5}, r"`label_smoothing` must be in \[0, 1\], not 1.5"),
        ({"class_weights": [-1.0, 1.0]}, r"`class_weights\[0\]` must be at least 0, not -1.0"),
        ({"task": "stsb", "label_names": ["a"]}, "are for classes; the task 'stsb' has scores"),
        ({"adapter": AdapterConfig(), "train_backbone": True}, "cannot be combined with an `adapter`"),
    ],
)
def test_bad_argument_is_refused(bert, options, message):
    with pytest.raises(ValueError, match=message):
        TextClassifier(bert, **options)


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        ("nowhere/at/all", {"label_names": ["a", "b"]}, "there is no backbone 'nowhere/at/all'"),
        (None, {}, "`label_names` are neither given nor known to the data module"),
        (
            None,
            {"label_names": ["a", "b"], "class_weights": [1.0] * 3},
            "`class_weights` are 3, but there are 2 classes",
        ),
        (
            None,
            {"label_names": ["a", "b"], "backbone_options": {"model_args": {"hiden_size": 3}}},
            "`model_args` 'hiden_size' is no field of the config of .*: did you mean hidden_size?",
        ),
    ],
)
def test_bad_model_is_refused_when_it_is_built(bert, backbone, options, message):
    with pytest.raises(ValueError, match=message):
        TextClassifier(backbone or bert, **options).configure_model()


def test_model_with_another_number_of_outputs_is_refused():
    model = tf.BertForSequenceClassification(tiny_bert_config(num_labels=3))
    with pytest.raises(ValueError, match=r"has 3 outputs, but the task 'classification' needs 2, one for each of"):
        TextClassifier(model, label_names=["a", "b"]).configure_model()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_sequence_longer_than_the_model_allows_is_refused(kind):
    if kind == "bert":
        model, allowed = tf.BertForSequenceClassification(tiny_bert_config()), 40
    else:
        small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        config = tf.RobertaConfig(vocab_size=19, max_position_embeddings=40, **small)
        model, allowed = tf.RobertaForSequenceClassification(config), 38  # positions start behind the padding's
    module = TextClassifier(model, label_names=["a", "b"]).eval()
    module.configure_model()
    module.logits(inputs(allowed))
    with pytest.raises(ValueError, match=f"sequences of {allowed + 1} tokens, but the backbone allows {allowed}"):
        module.logits(inputs(allowed + 1))
