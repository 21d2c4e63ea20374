"""A sample of what `python -m benchmarks.coverage` examines: one model of each way to be built."""

import json
import logging
import os

import pytest
import torch
from torch import nn
from transformers import MusicgenForCausalLM, PretrainedConfig

pytest.importorskip("transformers.models.uvdoc", reason="types of a later transformers are among the models")

from benchmarks.coverage.__main__ import main, rows_of
from benchmarks.coverage.checks import examine
from benchmarks.coverage.small_config import COUNTS, VOCABULARY, small_config
from benchmarks.coverage.subject import Call, Subject
from benchmarks.coverage.transformers_models import subject, working_calls
from benchmarks.coverage.type_facts import OVERRIDES

# Fused rows in order, by head and heads first; latents of keys and values; attention that torch has; weights that are
# read or shared; experts in each layout; convolutions as projections; several towers; attention in windows; a batch
# normalisation of few numbers.
SAMPLE = [
    "transformers:bert", "transformers:modernbert", "transformers:gpt_bigcode", "transformers:persimmon",
    "transformers:codegen", "transformers:mpt", "transformers:deepseek_v3", "transformers:siglip",
    "transformers:wavlm", "transformers:mamba", "transformers:phi4_multimodal", "transformers:longformer",
    "transformers:zamba", "transformers:gpt_oss", "transformers:mixtral", "transformers:qwen2_vl",
    "timm:tiny_vit_5m_224", "timm:visformer_tiny", "timm:test_vit", "timm:rexnet_100", "timm:iformer_t",
]  # fmt: skip
WITHOUT_ATTENTION = ["transformers:mamba", "timm:rexnet_100"]


@pytest.mark.parametrize("name", SAMPLE)
def test_all_linear_and_the_roles_are_right(name):
    wanted = [("ours", "all-linear"), ("ours", "q v")]
    rows = {(row["arm"], row["targets"]): row for row in rows_of(name, wanted)}
    for arm, targets in wanted:
        row = rows[arm, targets]
        is_absent = targets == "q v" and name in WITHOUT_ATTENTION
        assert row["verdict"] == ("absent" if is_absent else "right"), row


# Mixtures with experts in each layout among them, towers, encoders, decoders and both.
READ_BOTH_WAYS = [
    "bert", "distilbert", "albert", "xlm-roberta", "deberta-v2", "nystromformer", "gpt_neo", "gpt_neox", "ctrl",
    "mistral", "cohere", "glm4", "olmo3", "bamba", "gpt_oss", "olmoe", "qwen2_moe", "glm4_moe", "flex_olmo", "dots1",
    "minimax", "aria_text", "t5", "t5gemma", "fsmt", "qwen2_vl", "clip_vision_model", "dinov2", "swinv2", "convnext",
    "unispeech", "audio-spectrogram-transformer",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", READ_BOTH_WAYS)
def test_files_are_read_by_peft_and_read_from_peft_with_the_same_output(name):
    wanted = [("ours", "all-linear"), ("peft", "all-linear")]
    rows = {row["arm"]: row for row in rows_of(f"transformers:{name}", wanted)}
    for arm in ("peft reads ours", "ours reads peft"):
        assert rows[arm]["verdict"] == "right", rows[arm]


def test_a_role_in_some_attention_alone_is_in_part_where_the_report_says_so(monkeypatch):
    (row,) = (row for row in rows_of("timm:gcvit_xxtiny", [("ours", "q")]) if row["arm"] == "ours")
    assert (row["verdict"], row["errors"]["q found"]) == ("in part", 0.5)  # global blocks are given their queries
    monkeypatch.setattr("benchmarks.coverage.checks.unplayed", lambda model, role: ())
    (row,) = (row for row in rows_of("timm:gcvit_xxtiny", [("ours", "q")]) if row["arm"] == "ours")
    assert row["verdict"] == "partial"


class WantsLabels(nn.Module):
    """As FastSpeech2Conformer, whose training mode wants labels of five kinds."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x, labels=None):
        if self.training and labels is None:
            raise ValueError("All labels must be provided to run in training mode.")
        return self.fc(x)


class AddsToItsValuesAttention(nn.Module):
    """As NeoMME, which adds embeddings of tokens to the values of some layers."""

    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(6, 6) for _ in range(3))

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return (q @ k.mT).softmax(-1) @ (v + x)


def test_values_are_found_where_something_is_added_to_them():
    model = nn.Sequential(AddsToItsValuesAttention())
    subject = Subject("toy", model, [Call("forward", {"input": torch.randn(4, 5, 6)})])
    (row, *_) = examine(subject, "ours", "v")
    assert (row.verdict, row.errors["v found"]) == ("right", 1.0), row.reason


def test_a_model_that_wants_labels_to_train_is_examined_in_evaluation_mode():
    subject = Subject("toy", WantsLabels(), [Call("forward", {"x": torch.randn(4, 6)})])
    (row, *_) = examine(subject, "ours", "all-linear")
    assert (row.verdict, row.num_tested) == ("right", 1), row.reason


class RunsATowerWithoutGradients(nn.Module):
    def __init__(self):
        super().__init__()
        self.tower, self.fc = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        with torch.no_grad():
            x = self.tower(x)
        return self.fc(x)


def test_a_part_that_gets_no_gradient_in_full_fine_tuning_needs_none():
    subject = Subject("toy", RunsATowerWithoutGradients(), [Call("forward", {"x": torch.randn(4, 6)})])
    (row, *_) = examine(subject, "ours", "tower")
    assert (row.verdict, row.num_tested) == ("right", 0), row.reason


class TooLarge(WantsLabels):
    def forward(self, x, labels=None):
        if self.training:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return self.fc(x)


def test_a_model_that_takes_more_memory_than_it_may_is_not_wrong():
    subject = Subject("toy", TooLarge(), [Call("forward", {"x": torch.randn(4, 6)})])
    assert [row.verdict for row in examine(subject, "ours", "all-linear")] == ["not run"]


def test_stages_have_one_block_and_layers_that_are_named_by_their_number_exist():
    assert small_config("swin", lists=True).depths == [1, 1, 1, 1]
    config = small_config("depth_anything", lists=True)
    assert config.backbone_config.out_indices == [1, 2, 3, 4]
    assert (config.backbone_config.num_hidden_layers, config.backbone_config.reshape_hidden_states) == (4, False)
    assert small_config("dpt", lists=True).backbone_out_indices == [0, 1, 2, 3]


def test_fields_without_a_value_get_one_where_that_is_asked_for():
    assert small_config("blip-2").image_token_index is None
    assert 0 < small_config("blip-2", missing=True).image_token_index < VOCABULARY


def test_widths_that_hang_together_are_divided_together_and_as_many_stages_stay():
    hiera = small_config("sam2_vision_model", OVERRIDES, {}, COUNTS, lists=True, divisor=8).backbone_config
    assert hiera.hidden_size == hiera.embed_dim_per_stage[0] == 12
    config = small_config("glpn", rules=COUNTS, lists=True, divisor=8)
    assert (config.num_encoder_blocks, config.hidden_sizes, config.depths) == (4, [4, 8, 20, 32], [1, 1, 1, 1])


def test_what_a_type_says_of_its_part_goes_before_what_is_known_of_the_part():
    part = small_config("xcodec", OVERRIDES).semantic_model_config
    assert part.conv_stride == [5, 8, 8] and part.conv_dim == OVERRIDES["hubert"]["conv_dim"]


def test_what_is_known_of_a_type_holds_where_it_is_a_part():
    assert OVERRIDES["swin"]["embed_dim"] == small_config("maskformer", OVERRIDES).backbone_config.embed_dim


def test_a_decoder_is_built_from_its_part_of_the_configuration():
    assert isinstance(subject("musicgen").model, MusicgenForCausalLM)


class Sounds(nn.Module):
    """Two kinds of input, of which it takes one; a mask that has to be as long as the frames."""

    main_input_name, config = "sound", PretrainedConfig()

    def forward(self, input_features=None, input_features_mask=None, input_values=None):
        if (input_features is None) == (input_values is None):
            raise ValueError("exactly one")
        return input_features.mean(1) * input_features_mask.float()


def test_one_of_several_sounds_is_given_with_a_mask_as_long_as_it_is():
    calls, _ = working_calls(Sounds())
    assert set(calls[0].arguments) == {"input_features", "input_features_mask"}
    assert calls[0].arguments["input_features_mask"].shape == (2, 64)


class Narrow(nn.Module):
    """Takes a number of features that its configuration has no word for."""

    main_input_name, config = "input_features", PretrainedConfig()

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(37, 4)

    def forward(self, input_features):
        return self.fc(input_features)


def test_a_call_is_made_again_with_the_number_of_features_that_torch_says_is_wanted():
    calls, failed = working_calls(Narrow())
    assert calls[0].arguments["input_features"].shape == (2, 64, 37)
    assert "and 37x4" in failed[0]


class Pairs(nn.Module):
    """Takes a sound of three dimensions and a spectrum: neither alone is what the first value tried is."""

    main_input_name, config = "input_values", PretrainedConfig()

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(37, 4)

    def forward(self, input_values, input_features):
        """Join both.

        input_values (`torch.Tensor` of shape `(batch_size, 1, sequence_length)`):
            A sound.
        """
        _, _, _ = input_values.shape
        return self.fc(input_features).mean() + input_values.mean()


def test_a_call_is_made_again_with_values_of_as_many_dimensions_as_the_docstring_says():
    calls, _ = working_calls(Pairs())
    assert {n: v.shape[1:] for n, v in calls[0].arguments.items()} == {
        "input_values": (1, 4000), "input_features": (64, 37)
    }  # fmt: skip


class Tower(nn.Module):
    config = PretrainedConfig(image_token_id=7, image_size=32)

    def get_image_features(self, pixel_values):
        return pixel_values.flatten(2)[:, :, :5].mT  # five tokens of each picture


class Retrieval(nn.Module):
    """As ColPali, whose model within knows which tokens stand for a picture."""

    main_input_name, config = "input_ids", PretrainedConfig()

    def __init__(self):
        super().__init__()
        self.vlm = Tower()

    def forward(self, input_ids, pixel_values=None):
        features = self.vlm.get_image_features(pixel_values)
        if (input_ids == 7).sum() != features.shape[:2].numel():
            raise ValueError("features and tokens do not match")
        return features


def test_pictures_go_with_as_many_tokens_as_the_model_within_makes_of_them():
    calls, _ = working_calls(Retrieval())
    assert (calls[0].arguments["input_ids"] == 7).sum(1).tolist() == [5, 5]


class Prompted(nn.Module):
    """As SegGPT, whose prompts are as large as the picture, half of what it takes in."""

    main_input_name, config = "pixel_values", PretrainedConfig(image_size=(64, 32))

    def forward(self, pixel_values, prompt_pixel_values, prompt_masks):
        if (whole := torch.cat([prompt_pixel_values, pixel_values], 2)).shape[2:] != (64, 32):
            raise ValueError("size")
        return whole + prompt_masks.repeat(1, 1, 2, 1)


def test_prompts_are_as_large_as_the_picture():
    calls, _ = working_calls(Prompted())
    assert {v.shape[2:] for v in calls[0].arguments.values()} == {(32, 32)}


def test_a_configuration_that_is_given_stays_as_it_is():
    config = small_config("lw_detr", OVERRIDES)
    assert config.backbone_config is OVERRIDES["lw_detr"]["backbone_config"]


@pytest.mark.slow
def test_another_class_of_a_type_is_built_where_the_first_can_not_be_called():
    # What Llama 4 for pictures gives lacks a field that it reads from its language model.
    assert type(subject("llama4").model).__name__ == "Llama4ForCausalLM"


@pytest.fixture
def own_settings(monkeypatch):
    """What the program sets for its process is as before afterwards."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    disabled, threads = logging.root.manager.disable, torch.get_num_threads()
    yield
    logging.disable(disabled)
    torch.set_num_threads(threads)


def test_results_are_resumed_and_written_as_a_table(tmp_path, capfd, own_settings):
    out = tmp_path / "coverage.jsonl"
    arguments = ["timm:test_resnet", "--arms", "ours", "--targets", "all-linear", "--out", str(out)]
    assert main(arguments) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {(row["arm"], row["verdict"]) for row in rows} == {("ours", "right"), ("peft reads ours", "right")}
    assert main(arguments) == 0
    assert out.read_text().count("\n") == len(rows)
    assert "1 of 1 results are there already" in capfd.readouterr().out
    assert "| timm | all-linear | ours | 1 |" in out.with_suffix(".md").read_text()
