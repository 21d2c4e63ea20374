"""A tiny encoder with its tokenizer, and GLUE's tasks in their original layouts, written where a test wants them."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers, processors

GLUE_FOLDERS = {
    "cola": "CoLA",
    "sst2": "SST-2",
    "mrpc": "MRPC",
    "qqp": "QQP",
    "stsb": "STS-B",
    "mnli": "MNLI",
    "qnli": "QNLI",
    "rte": "RTE",
    "wnli": "WNLI",
}
WORDS = ["a", "the", "cat", "dog", "sat", "ran", "on", "mat", "far", "is", "was", "not", ".", '"', "?"]
SENTENCES = ["the cat sat on the mat .", 'a "dog" ran far .', "the dog was not far .", '" is a cat on a mat ?']


def word_pieces() -> tf.PreTrainedTokenizerFast:
    """One token a word, `[CLS] a [SEP] b [SEP]` around texts and pairs, segments 0 and 1, as BERT has it."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def tiny_bert_config(**changes) -> tf.BertConfig:
    return tf.BertConfig(
        **{
            "vocab_size": len(WORDS) + 4,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 16,
            "max_position_embeddings": 40,
            **changes,
        }
    )


def write_tiny_bert(folder: Path, **changes) -> Path:
    """Save an encoder without a head, and its tokenizer."""
    torch.manual_seed(0)
    tf.BertModel(tiny_bert_config(**changes)).save_pretrained(folder)
    word_pieces().save_pretrained(folder)
    return folder


def _pairs(count: int) -> list[tuple[str, str]]:
    return [(SENTENCES[i % 4], SENTENCES[(i * 3 + 1) % 4]) for i in range(count)]


def glue_lines(task: str, count: int, split: str = "train") -> list[str]:
    """Lines of a task's file, with its header if it has one; `split` is train, dev or test."""
    labelled = split != "test"
    names = ("entailment", "not_entailment")
    rows: list[list[object]] = []
    for i, (one, two) in enumerate(_pairs(count)):
        binary = i % 2
        rows.append(
            {
                "cola": ["gj04", binary, "" if binary else "*", one] if labelled else [i, one],
                "sst2": [one, binary] if labelled else [i, one],
                "mrpc": [binary if labelled else i, 1000 + i, 2000 + i, one, two],
                "qqp": [i, 10 + i, 20 + i, one, two, binary] if labelled else [i, one, two],
                "stsb": [i, "main", "file", 2012, i, "none", "none", one, two, *([f"{i % 6}.000"] if labelled else [])],
                "mnli": [i, i, f"{i}n", "fiction", "(", ")", "(", ")", one, two]
                + ([*(["neutral"] * (5 if split == "dev" else 1)), _MNLI[i % 3]] if labelled else []),
                "qnli": [i, one, two, *([names[binary]] if labelled else [])],
                "rte": [i, one, two, *([names[binary]] if labelled else [])],
                "wnli": [i, one, two, *([binary] if labelled else [])],
            }[task]
        )
    lines = ["\t".join(map(str, row)) for row in rows]
    header = None if task == "cola" and labelled else _header(task, split)
    return lines if header is None else [header, *lines]


_MNLI = ("entailment", "neutral", "contradiction")


def _header(task: str, split: str) -> str:
    labelled = split != "test"
    parse = "sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse"
    annotators = "label1 label2 label3 label4 label5" if split == "dev" else "label1"
    names = {
        "cola": "index sentence",
        "sst2": "sentence label" if labelled else "index sentence",
        "qqp": "id qid1 qid2 question1 question2 is_duplicate" if labelled else "id question1 question2",
        "stsb": "index genre filename year old_index source1 source2 sentence1 sentence2" + " score" * labelled,
        "mnli": f"index promptID pairID genre {parse} sentence1 sentence2" + f" {annotators} gold_label" * labelled,
        "qnli": "index question sentence" + " label" * labelled,
        "rte": "index sentence1 sentence2" + " label" * labelled,
        "wnli": "index sentence1 sentence2" + " label" * labelled,
    }
    if task == "mrpc":
        return f"{'Quality' if labelled else 'index'}\t#1 ID\t#2 ID\t#1 String\t#2 String"
    return "\t".join(names[task].split())


def write_glue_task(folder: Path, task: str, count: int = 12, test: bool = False) -> Path:
    """Write a task's files in the original layout below `folder`, which is returned."""
    target = folder / GLUE_FOLDERS[task]
    target.mkdir(parents=True, exist_ok=True)
    suffixes = ("_matched", "_mismatched") if task == "mnli" else ("",)
    files = {"train.tsv": "train"} | {f"dev{suffix}.tsv": "dev" for suffix in suffixes}
    files |= {f"test{suffix}.tsv": "test" for suffix in suffixes} if test else {}
    for name, split in files.items():
        (target / name).write_text("\n".join(glue_lines(task, count, split)) + "\n")
    return folder
