"""Files of texts, in every format and for every task that reads them, of which something is wrong."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from asym_lightning.data import (
    AlpacaDataModule,
    GLUEDataModule,
    LoaderOptions,
    MMLUDataModule,
    MultiLabelTextDataModule,
    PreferenceDataModule,
    QuestionAnsweringDataModule,
    SentencePairDataModule,
    SummarizationDataModule,
    TextFilesDataModule,
    TokenClassificationDataModule,
)
from benchmarks.malformed import values
from benchmarks.malformed.adapters import PLACES
from benchmarks.malformed.case import Case

ROWS = 8
Row = dict[str, Any]
_LOADER = LoaderOptions(batch_size=2)


@functools.cache
def _tokenizer() -> PreTrainedTokenizerFast:
    words = ["[PAD]", "[UNK]", "</s>", "A", "B", "C", "D", *"abcdefgh"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", eos_token="</s>", model_max_length=64
    )


@functools.cache
def _cache() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="malformed-cache")


def common() -> dict[str, Any]:
    """What all data modules are given."""
    return {"tokenizer": _tokenizer(), "cache_dir": _cache().name, "loader": _LOADER}


def _classes(path: Path) -> None:
    use(TextFilesDataModule(train=path, **common()))


def _regression(path: Path) -> None:
    use(TextFilesDataModule(train=path, regression=True, **common()))


def _named_classes(path: Path) -> None:
    use(TextFilesDataModule(train=path, label_names=["x", "y"], **common()))


def _alpaca(path: Path) -> None:
    use(AlpacaDataModule(train=path, num_val=0, **common()))


def _summaries(path: Path) -> None:
    use(SummarizationDataModule(train=path, **common()))


def _tags(path: Path) -> None:
    use(TokenClassificationDataModule(train=path, **common()))


def _spans(path: Path) -> None:
    use(TokenClassificationDataModule(train=path, **common()))


def _pairs(path: Path) -> None:
    use(PreferenceDataModule(train=path, template="none", **common()))


def _questions(path: Path) -> None:
    use(QuestionAnsweringDataModule(train=path, stride=2, **common()))


def _sentence_pairs(path: Path) -> None:
    use(SentencePairDataModule(train=path, **common()))


def _label_sets(path: Path) -> None:
    use(MultiLabelTextDataModule(train=path, **common()))


def use(data: Any) -> None:
    """Read data as training does."""
    data.setup("fit")
    next(iter(data.train_dataloader()))


def _labelled() -> list[Row]:
    return [{"text": f"a b {'c' * (i % 3)}", "label": "xy"[i % 2]} for i in range(ROWS)]


def _scored() -> list[Row]:
    return [{"text": "a b", "label": float(i)} for i in range(ROWS)]


def _instructions() -> list[Row]:
    return [{"instruction": "a b", "input": "c", "output": "d e"} for _ in range(ROWS)]


def _documents() -> list[Row]:
    return [{"document": "a b c d", "summary": "a b"} for _ in range(ROWS)]


def _tagged() -> list[Row]:
    return [{"tokens": ["a", "b", "c"], "tags": ["O", "B-x", "I-x"]} for _ in range(ROWS)]


def _marked() -> list[Row]:
    return [{"text": "a b c", "spans": [{"start": 0, "end": 3, "label": "x"}]} for _ in range(ROWS)]


def _preferences() -> list[Row]:
    return [{"prompt": "a b", "chosen": "c", "rejected": "d e"} for _ in range(ROWS)]


def _answered() -> list[Row]:
    answers = {"text": ["b"], "answer_start": [2]}
    return [{"question": "a ?", "context": "a b c d", "answers": answers} for _ in range(ROWS)]


def _of_several() -> list[Row]:
    return [{"text": "a b", "labels": "x" if i % 2 else "y"} for i in range(ROWS)]


def _alike() -> list[Row]:
    return [{"anchor": "a b", "positive": "c", "negative": "d"} for _ in range(ROWS)]


def _pairs_with_scores() -> list[Row]:
    return [{"sentence1": "a b", "sentence2": "c", "score": 0.5} for _ in range(ROWS)]


# Task: its reader, its rows, and its columns with what may not be in a cell of them.
_NO_TEXTS: Sequence[Any] = (None, ["a"], {"a": 1}, float("nan"))
_NO_LABELS: Sequence[Any] = (None, ["x"], {"x": 1}, float("nan"), "")
_NO_SCORES: Sequence[Any] = (None, "x", ["1"], {}, float("nan"), float("inf"), 1e300, -1e300, "1,5", True)
TASKS: Mapping[str, tuple[Callable[[Path], None], Callable[[], list[Row]], Mapping[str, Sequence[Any]]]] = {
    "classes": (_classes, _labelled, {"text": _NO_TEXTS, "label": _NO_LABELS}),
    "named classes": (_named_classes, _labelled, {"text": _NO_TEXTS, "label": (*_NO_LABELS, "z", 7, True)}),
    "regression": (_regression, _scored, {"text": _NO_TEXTS, "label": _NO_SCORES}),
    "alpaca": (_alpaca, _instructions,
               {"instruction": (*_NO_TEXTS, 3), "output": (*_NO_TEXTS, 3), "input": (["a"], {}, 3)}),
    "tags": (_tags, _tagged,
             {"tokens": (*_NO_TEXTS, "a", [], ["a"], ["a", "b", 3]),
              "tags": (None, "O", ["O"], [["O"], "O", "O"], {}, ["O", None, "O"])}),
    "spans": (_spans, _marked,
              {"text": (*_NO_TEXTS, "", 3),
               "spans": (None, "x", [3], [{}], [[0, 9, "x"]], [[0, 1, "x"], [0, 1, "y"]], [[2, 1, "x"]], [[0, 1, 3]])}),
    "preferences": (_pairs, _preferences,
                    {"prompt": (None, {}, 3, ["a"]), "chosen": (*_NO_TEXTS, 3, ""), "rejected": (None, 3, [], " ")}),
    "triplets": (_sentence_pairs, _alike, {"anchor": (*_NO_TEXTS, ""), "positive": (*_NO_TEXTS, " ")}),
    "scored pairs": (_sentence_pairs, _pairs_with_scores, {"sentence1": _NO_TEXTS, "score": (*_NO_SCORES, 2)}),
    "label sets": (_label_sets, _of_several, {"text": _NO_TEXTS, "labels": (None, {"x": 1}, 3, [["x"]], [None])}),
    "questions": (_questions, _answered,
                  {"question": (*_NO_TEXTS, 3, " "), "context": (*_NO_TEXTS, 3, "", "b a"),
                   "answers": (None, 3, "b", [3], {}, {"text": ["b"]}, {"text": ["b"], "answer_start": [1]},
                               {"text": ["b"], "answer_start": ["2"]}, {"text": [3], "answer_start": [2]})}),
    "summaries": (_summaries, _documents, {"document": (["a"], {"a": 1}), "summary": (["a"], {"a": 1})}),
}  # fmt: skip


RECORDS = ("alpaca", "summaries", "tags", "spans", "preferences", "questions", "label sets", "triplets", "scored pairs")
"""Tasks whose files may be arrays of JSON."""


def _write_lines(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _write_array(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(rows))


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    mark = "\t" if path.suffix == ".tsv" else ","
    lines = [mark.join(rows[0]), *(mark.join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines) + "\n")


def _write_parquet(path: Path, rows: Sequence[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


_WRITERS: Mapping[str, Callable[[Path, Sequence[Row]], None]] = {
    ".jsonl": _write_lines,
    ".json": _write_array,
    ".csv": _write_csv,
    ".tsv": _write_csv,
    ".parquet": _write_parquet,
}


def _formats(task: str) -> list[str]:
    lists = (
        (".jsonl", ".json", ".parquet") if task in ("tags", "spans", "questions") else tuple(_WRITERS)
    )  # cells that hold lists
    return [form for form in lists if form != ".json" or task in RECORDS]


def _case(what: str, task: str, form: str, write: Callable[[Path], Any], *offenders: str) -> Case:
    name = f"train{form}"
    return Case(f"{task}, {name}: {what}", offenders or (name,), lambda folder: write(folder / name),
                lambda folder: TASKS[task][0](folder / name))  # fmt: skip


@st.composite
def _cell_cases(draw: st.DrawFn) -> Case:
    task = draw(st.sampled_from(list(TASKS)))
    form = draw(st.sampled_from([".jsonl", ".json"] if task in RECORDS else [".jsonl"]))
    column = draw(st.sampled_from(list(TASKS[task][2])))
    value, row = draw(st.sampled_from(TASKS[task][2][column])), draw(st.integers(0, ROWS - 1))

    def write(path: Path) -> None:
        rows = TASKS[task][1]()
        rows[row][column] = value
        _WRITERS[form](path, rows)

    return _case(f"{column} of row {row} is {value!r}", task, form, write, "train")


@st.composite
def _column_cases(draw: st.DrawFn) -> Case:
    task = draw(st.sampled_from(list(TASKS)))
    form = draw(st.sampled_from(_formats(task)))
    columns = [column for column in TASKS[task][2] if column != "input"]
    column = draw(st.sampled_from(columns))
    new = draw(st.sampled_from(["", "Text", f"{column}s", None, "\x1b[31m"]))

    def write(path: Path) -> None:
        rows = []
        for row in TASKS[task][1]():
            value = row.pop(column)
            rows.append(row if new is None else {**row, new: value})
        _WRITERS[form](path, rows)

    what = f"{column} is missing" if new is None else f"{column} is called {new!r}"
    return _case(what, task, form, write, "train")


@st.composite
def _byte_cases(draw: st.DrawFn) -> Case:
    task = draw(st.sampled_from(list(TASKS)))
    form, data = draw(st.sampled_from(_formats(task))), draw(values.bytes_of_nothing())
    return _case(f"{data!r:.60}", task, form, lambda path: path.write_bytes(data))


@st.composite
def _truncated_cases(draw: st.DrawFn) -> Case:
    task = draw(st.sampled_from(list(TASKS)))
    forms = [form for form in _formats(task) if form in (".json", ".parquet")]
    form, share = draw(st.sampled_from(forms)), draw(st.integers(0, 97))

    def write(path: Path) -> None:
        _WRITERS[form](path, TASKS[task][1]())
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * share // 100])

    return _case(f"cut to {share}%", task, form, write)


@st.composite
def _line_cases(draw: st.DrawFn) -> Case:
    """One bad line among good ones."""
    task = draw(st.sampled_from(list(TASKS)))
    form = draw(st.sampled_from([form for form in (".jsonl", ".csv", ".tsv") if form in _formats(task)]))
    bad = draw(st.sampled_from([b"{", b"[1]", b"\xff\xfe", b"3", b'"', b"a,b,c,d,e,f\tg\th\ti\tj\tk\tl", b"[" * 100_000,
                                b"null", b'{"a": ', b"'"]))  # fmt: skip
    if (form == ".tsv" and bad == b'"') or bad == b"'":
        bad = b"\xe9"
    place = draw(st.integers(1, ROWS - 1))

    def write(path: Path) -> None:
        _WRITERS[form](path, TASKS[task][1]())
        lines = path.read_bytes().split(b"\n")
        path.write_bytes(b"\n".join([*lines[:place], bad, *lines[place:]]))

    return _case(f"line {place + 1} is {bad!r:.40}", task, form, write)


@st.composite
def _place_cases(draw: st.DrawFn) -> Case:
    task, kind = draw(st.sampled_from(list(TASKS))), draw(st.sampled_from(list(PLACES)))
    form = draw(st.sampled_from(_formats(task)))
    return _case(f"is {kind}", task, form, PLACES[kind])


def _columns_of_parquet(column: pa.Array) -> Callable[[Path], None]:
    return lambda path: pq.write_table(pa.table({"text": column, "label": pa.array(["x", "y"])}), path)


_PARQUET = {
    "binary texts": pa.array([b"a", b"\xff"]),
    "lists of texts": pa.array([["a"], ["b"]]),
    "structures": pa.array([{"a": 1}, {"a": 2}]),
    "no texts": pa.array([None, None], pa.string()),
}


@st.composite
def _parquet_cases(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(list(_PARQUET)))
    return _case(f"holds {kind}", "classes", ".parquet", _columns_of_parquet(_PARQUET[kind]))


_MMLU_LINES = (b"q,a,b,c,d\n", b"q,a,b,c,d,E\n", b"q,a,b,c,d,\n", b"q\n", b"\xff,a,b,c,d,A\n", b'"q,a,b,c,d,A\n',
               b"q,a,b,c,d,A,more\n", b"q,a,b,c,d,1\n", b"")  # fmt: skip


@st.composite
def _mmlu_cases(draw: st.DrawFn) -> Case:
    bad, split = draw(st.sampled_from(_MMLU_LINES)), draw(st.sampled_from(["dev", "test"]))
    place = draw(st.integers(0, 5))
    if bad == b"":
        place = -1

    def make(folder: Path) -> None:
        for name, count in (("dev", 5), ("test", 6)):
            (folder / name).mkdir()
            lines = [b"a b,a,b,c,d,A\n"] * count
            if name == split:
                lines = [] if place == -1 else [*lines[:place], bad, *lines[place:]]
            (folder / name / f"algebra_{name}.csv").write_bytes(b"".join(lines))

    def call(folder: Path) -> None:
        data = MMLUDataModule(folder=folder, num_shots=5, **common())
        data.setup("test")

    what = f"{split} is empty" if place == -1 else f"line {place + 1} of {split} is {bad!r}"
    return Case(f"mmlu: {what}", ("algebra", "dev", "test", str(5)), make, call)


_RTE = b"index\tsentence1\tsentence2\tlabel\n"
_RTE_LINES = (
    b"0\ta\n",
    b"0\ta\tb\tmaybe\n",
    b"0\ta\tb\t\n",
    b"0\t\xff\tb\tentailment\n",
    b"0\ta\tb\tentailment\tmore\n",
)


@st.composite
def _glue_cases(draw: st.DrawFn) -> Case:
    bad, place = draw(st.sampled_from(_RTE_LINES)), draw(st.integers(0, 4))
    header = draw(st.sampled_from([_RTE, _RTE.replace(b"label", b"gold"), b"", b"\xff\xfe\n"]))
    is_bad_line = header == _RTE

    def make(folder: Path) -> None:
        (folder / "RTE").mkdir()
        good = [f"{i}\ta b\tc d\tentailment\n".encode() for i in range(4)]
        lines = [*good[:place], bad, *good[place:]] if is_bad_line else good
        (folder / "RTE" / "train.tsv").write_bytes(b"".join([header, *lines]))
        (folder / "RTE" / "dev.tsv").write_bytes(b"".join([_RTE, *good]))

    def call(folder: Path) -> None:
        use(GLUEDataModule("rte", folder=folder, **common()))

    what = f"line {place + 2} is {bad!r}" if is_bad_line else f"the header is {header!r}"
    return Case(f"glue: {what}", ("train.tsv",), make, call)


def named_cases() -> list[Case]:
    """Cases that were seen to end badly once."""

    def of_lines(rows: list[Row]) -> Callable[[Path], None]:
        return lambda path: _write_lines(path, rows)

    texts = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]

    def write_texts(folder: Path) -> None:
        _write_lines(folder / "train.jsonl", texts)
        (folder / "no_tokenizer").mkdir()

    def using(**options: Any) -> Callable[[Path], None]:
        return lambda folder: use(TextFilesDataModule(folder / "train.jsonl", **{**common(), **options}))

    return [
        _case("NaN labels", "classes", ".jsonl", of_lines([*texts, {"text": "a", "label": float("nan")}])),
        _case("list labels", "classes", ".jsonl", of_lines([*texts, {"text": "a", "label": ["x"]}])),
        _case("list texts", "classes", ".jsonl", of_lines([*texts, {"text": ["a"], "label": "x"}])),
        _case("one class", "classes", ".jsonl", of_lines([{"text": "a", "label": "x"}] * 4)),
        _case("targets of 1e300", "regression", ".jsonl", of_lines([{"text": "a", "label": 1e300}])),
        *(_case(kind, "classes", ".parquet", _columns_of_parquet(column)) for kind, column in _PARQUET.items()),
        Case("classes: duplicate label names", ("label_names",), write_texts, using(label_names=["x", "x"])),
        Case("a folder without a tokenizer", ("tokenizer",), write_texts, using(tokenizer="no_tokenizer")),
    ]  # fmt: skip


def strategy() -> st.SearchStrategy[Case]:
    """Cases at random."""
    return st.one_of(
        _cell_cases(), _column_cases(), _byte_cases(), _truncated_cases(), _line_cases(), _place_cases(),
        _parquet_cases(), _mmlu_cases(), _glue_cases(),
    )  # fmt: skip
