import pytest

from asym_lightning.core.messages import check_choice, did_you_mean, listed, nearest, not_one_of


def test_lists_are_cut_with_a_count():
    assert listed(["a", "b"], 2) == "a, b"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
    assert listed([], 2) == ""


@pytest.mark.parametrize(
    ("name", "known", "near"),
    [
        ("rnak", ["alpha", "rank", "rank_pattern"], "rank"),
        ("STS-B", ["sst2", "stsb"], "stsb"),
        ("officehome", ["PACS", "OfficeHome"], "OfficeHome"),
        ("batchsize", ["eval_batch_size", "batch_size"], "batch_size"),
        (None, ["b", "c"], None),
        (2, ["0", "1"], None),
        ("", ["a"], None),
        ("x", [], None),
    ],
)
def test_the_nearest_is_found_whatever_case_and_hyphens(name, known, near):
    assert nearest(name, known) == near


def test_a_hint_names_the_nearest_or_what_there_is_and_is_never_empty():
    assert did_you_mean("rnak", ("rank", "alpha")) == ": did you mean rank?"
    assert did_you_mean("xyz", {"rank": 1, "alpha": 2}) == "; there are rank, alpha."
    assert did_you_mean("xyz", [str(i) for i in range(10)], limit=3) == "; there are 0, 1, 2 and 7 more."
    assert did_you_mean("xyz", []) == "; there are none."


def test_a_choice_is_refused_with_all_of_them_and_the_nearest():
    check_choice("decay", "linear", ("linear", "cosine"))
    with pytest.raises(
        ValueError, match=r"^`decay` must be one of linear, cosine, not 'cosin': did you mean cosine\?$"
    ):
        check_choice("decay", "cosin", ("linear", "cosine"))
    assert not_one_of("the label", None, ["b", "c"]) == "the label must be one of b, c, not None."
