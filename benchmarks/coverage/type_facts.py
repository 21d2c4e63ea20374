"""Fields of single types of transformers that no rule makes small so that they fit one another."""

from __future__ import annotations

from typing import Any

from transformers import (
    HGNetV2Config,
    LwDetrViTConfig,
    PPLCNetV4Config,
    ResNetConfig,
    TimmBackboneConfig,
    TimmWrapperConfig,
    UVDocBackboneConfig,
)

from benchmarks.coverage.small_config import HEAD_DIM, HEADS, IMAGE, INNER, PATCH, VOCABULARY, WIDTH

_RESNET = ResNetConfig(
    embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic",
    out_features=["stage2", "stage3", "stage4"],
)  # fmt: skip
_RESNET_LAST = ResNetConfig(
    embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
)
_RESNET_ALL = ResNetConfig(
    embedding_size=16, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], layer_type="basic",
    out_features=["stage1", "stage2", "stage3", "stage4"],
)  # fmt: skip
_HGNET: dict[str, Any] = {
    "embedding_size": 16, "hidden_sizes": [32, 48, 64, 96], "depths": [1, 1, 1, 1], "stem_channels": [3, 8, 16],
    "stage_in_channels": [16, 32, 48, 64], "stage_mid_channels": [8, 8, 16, 16],
    "stage_out_channels": [32, 48, 64, 96], "stage_num_blocks": [1, 1, 1, 1], "stage_numb_of_layers": [2, 2, 2, 2],
}  # fmt: skip
# Of DETR's kin, which joins the features of three stages.
_JOINED: dict[str, Any] = {
    "encoder_in_channels": [48, 64, 96], "encoder_hidden_dim": WIDTH, "d_model": WIDTH,
    "decoder_in_channels": 3 * [WIDTH], "num_denoising": 0, "lqe_hidden_dim": WIDTH,
}  # fmt: skip
_AXES = {"vertical_long_to_small_conv": (1, 0), "horizontal_small_to_long_conv": (0, 1), "symmetric_conv_long": (1, 1)}
# Kernel, stride and padding of convolutions along one axis and along both.
_INTRACLASS: dict[str, Any] = {
    "scale_factor_list": [1, 2, 4, 8], "kernel_list": [3, 2, 2],
    "intraclass_block_config": {
        "reduce_channel": [1, 1, 0], "return_channel": [1, 1, 0],
        **{f"{name}_{ratio}ratio": [tuple(1 + 2 * pad * a for a in axes), 1, tuple(pad * a for a in axes)]
           for name, axes in _AXES.items() for ratio, pad in (("long", 3), ("mid", 2), ("short", 1))},
    },
}  # fmt: skip
_LCNET = PPLCNetV4Config(
    stem_channels=[3, 16, 32], out_features=["stage1", "stage2", "stage3", "stage4"],
    block_configs=[[[3, w, v, 1 if w == v else 2, False]] for w, v in ((32, 32), (32, 48), (48, 64), (64, 96))],
)  # fmt: skip
_SWIN = {"embed_dim": 16, "depths": [1, 1, 1, 1], "num_heads": [1, 2, 4, 8], "window_size": 2}
_CONV_AUDIO = {
    "num_feat_extract_layers": 3, "conv_dim": [32, 32, 32], "conv_stride": [5, 4, 4], "conv_kernel": [10, 4, 4],
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
_SERIES = {"prediction_length": 4, "context_length": 8}
_ZAMBA = ["mamba", "hybrid", "mamba", "hybrid"]
# Fields of several types, and of one.
_OVERRIDES_OF: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("detr", "conditional_detr", "dab-detr", "table-transformer"), {"backbone_config": _RESNET_LAST}),
    (("deformable_detr", "grounding-dino", "mm-grounding-dino"), {"backbone_config": _RESNET}),
    (("d_fine", "deimv2", "pp_doclayout_v2", "pp_doclayout_v4"),
     {**_JOINED, "backbone_config": HGNetV2Config(**_HGNET, out_features=["stage2", "stage3", "stage4"]),
      "class_thresholds": 2 * [0.5], "class_order": [0, 1]}),
    (("pp_doclayout_v3",),
     {**_JOINED, "x4_feat_dim": 32, "mask_feature_channels": [WIDTH, WIDTH],
      "backbone_config": HGNetV2Config(**_HGNET, out_features=["stage1", "stage2", "stage3", "stage4"])}),
    (("lw_detr",), {"projector_scale_factors": [1.0], "d_model": WIDTH, "backbone_config": LwDetrViTConfig(
        hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=HEADS, image_size=64, pretrain_image_size=64,
        patch_size=PATCH, num_windows=4, window_block_indices=[0, 2], out_indices=[2, 4])}),
    (("upernet",), {"backbone_config": _RESNET_ALL, "hidden_size": WIDTH, "auxiliary_channels": WIDTH}),
    (("tvp",), {"backbone_config": _RESNET_LAST, "visual_prompt_size": 8, "max_img_size": 64}),
    (("swin", "swinv2", "donut-swin", "maskformer-swin"), _SWIN),
    (("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat", "sew", "sew-d"), _CONV_AUDIO),
    (("data2vec-audio", "wav2vec2-conformer"), _CONV_AUDIO),
    (("autoformer", "informer", "time_series_transformer"), _SERIES),
    (("jamba",), {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1,
                  "num_hidden_layers": 2}),
    (("mamba2",), {"num_heads": 8, "head_dim": 16, "n_groups": 1}),
    (("zamba2",), {"n_mamba_heads": 8, "mamba_headdim": 16, "mamba_expand": 2, "mamba_ngroups": 1,
                   "attention_hidden_size": 128, "attention_head_dim": 32}),
    (("deepseek_v2",), {"num_key_value_heads": 4, "num_experts_per_tok": 2}),
    (("codegen", "gptj"), {"rotary_dim": 8}),
    (("recurrent_gemma",), {"num_hidden_layers": 3, "block_types": ["recurrent", "recurrent", "attention"]}),
    (("layoutlmv3",), {"coordinate_size": 8, "shape_size": 16}),
    (("esm",), {"vocab_size": VOCABULARY, "mask_token_id": 4, "pad_token_id": 0}),
    (("xmod",), {"default_language": "en_XX"}),
    (("pvt",), {"image_size": 64}),
    (("levit",), {"image_size": 128}),  # or too few numbers are normalised together
    (("mobilebert",), {"intra_bottleneck_size": 64, "embedding_size": 64}),
    (("moonshine",), {"encoder_num_key_value_heads": 4, "decoder_num_key_value_heads": 4}),
    (("bamba",), {"attn_layer_indices": [1], "num_hidden_layers": 2}),
    (("gpt_neo",), {"attention_types": [[["global", "local"], 1]], "num_layers": 2}),
    (("zamba",), {"layer_types": _ZAMBA, "num_hidden_layers": 4, "layers_block_type": _ZAMBA,
                  "attention_hidden_size": 128}),
    (("lfm2_moe",), {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}),
    (("granitemoehybrid",), {n: ["linear_attention", "full_attention"] for n in ("layer_types", "layers_block_type")}
                            | {"num_hidden_layers": 2, "mamba_n_heads": 8, "mamba_d_head": 16}),
    (("dory",), {"n_input_layers": 1, "n_recurrent_layers": 1, "n_output_layers": 1, "num_hidden_layers": 3,
                 "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}),
    (("qwen4_exp", "qwen4_exp_text"), {"*indexer_n_heads": 4, "*indexer_kv_heads": 1, "*indexer_head_dim": 16,
                                       "*indexer_budget": 8, "*indexer_compress_ratio": 4}),
    (("longcat_flash",), {"qk_head_dim": 2 * HEAD_DIM}),
    (("reformer",), {"axial_pos_embds_dim": [32, 32], "axial_pos_shape": [3, 4], "attn_layers": ["local", "lsh"],
                     "local_attn_chunk_length": 4, "lsh_attn_chunk_length": 4, "is_decoder": True,
                     # It draws seeds of its own, which no seed of ours reaches.
                     "hash_seed": 0, "hidden_dropout_prob": 0.0, "lsh_attention_probs_dropout_prob": 0.0,
                     "local_attention_probs_dropout_prob": 0.0}),
    (("chameleon", "emu3"), {"vocabulary_map": {"<image>": VOCABULARY - 1}}),
    (("pocket_tts", "gradium_phonon_tts"), {"flow_head_config.condition_dim": WIDTH}),
    (("fun_asr_nano",), {"adaptor_config.intermediate_size": WIDTH // 4}),
    (("gemma4_assistant",), {"*hidden_size_per_layer_input": 0}),
    (("step3p7",), {"*sliding_window": 4}),
    (("depth_pro",), {"patch_size": IMAGE, "intermediate_hook_ids": [1, 0], "intermediate_feature_dims": [32, 32],
                      "scaled_images_feature_dims": [32, 32, 32], "fusion_hidden_size": 32}),
    (("omdet-turbo",), {
        "backbone_config": TimmBackboneConfig(backbone="test_resnet", features_only=True, out_indices=[1, 2, 3]),
        "encoder_in_channels": [32, 48, 192], "vision_features_channels": 3 * [WIDTH], "image_size": 64,
        "apply_layernorm_after_vision_backbone": False, "text_projection_in_dim": 2 * WIDTH,
        "text_projection_out_dim": 2 * WIDTH,
        "class_embed_dim": 2 * WIDTH, "text_config.hidden_size": 2 * WIDTH}),
    (("nemotron3_5_asr",), {"default_prompt_id": 1}),
    # Keys and values of the last two layers are those of the first two.
    (("gemma3n_text",), {"num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": WIDTH,
                         "layer_types": 2 * ["sliding_attention", "full_attention"],
                         "activation_sparsity_pattern": 4 * [0.0]}),
    (("gemma3n_vision",), {"architecture": "test_resnet"}),
    (("hunyuan_vl_text",), {"head_dim": HEAD_DIM, "rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": 4 * [HEAD_DIM // 8]}}),
    (("sam", "sam_hq"), {"vision_config.output_channels": WIDTH, "vision_config.num_pos_feats": WIDTH // 2}),
    (("sam2",), {"vision_config.backbone_config.image_size": [64, 64], "prompt_encoder_config.image_size": 64,
                 "vision_config.backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}),
    # Widths come from the coefficient: the last block has a quarter of 320, the layer after it a quarter of 1280.
    (("efficientnet", "align_vision_model"), {"width_coefficient": 0.25, "depth_coefficient": 0.1, "hidden_dim": 320,
                                              "image_size": 64}),
    (("align",), {"projection_dim": 80}),
    (("sam2_hiera_det_model",), {"image_size": [64, 64]}),
    (("swin2sr",), {"embed_dim": 24, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "image_size": IMAGE}),
    (("edgetam_vision_model",), {
        "backbone_config": TimmWrapperConfig(architecture="test_resnet", model_args={
            "in_chans": 3, "features_only": True, "out_indices": [1, 2, 3, 4]}),
        "backbone_channel_list": [96, 192, 48, 32], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]]}),
    (("edgetam",), {"prompt_encoder_config.image_size": 64, "prompt_encoder_config.patch_size": 16}),
    (("qwen3_omni_moe",), {"talker_config.spatial_merge_size": 2}),
    (("sam3_tracker",), {"vision_config.backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
                         "prompt_encoder_config.image_size": IMAGE}),
    (("perception_lm",), {"vision_config.architecture": "test_vit",
                          "vision_config.model_args": {"embed_dim": WIDTH, "img_size": 64}}),
    (("clvp_encoder",), {"num_attention_heads": 2}),  # or less than a head is rotated
    (("blt",), {"use_cache": False}),  # it has no number of layers to make one by
    # As many samples a frame as its other encoder takes.
    (("xcodec",), {"semantic_model_config.conv_stride": [5, 8, 8], "semantic_model_config.conv_kernel": [10, 8, 8]}),
    (("xcodec2", "neucodec"), {"quantization_dim": 2 * WIDTH}),
    (("emu3_vqgan",), {"codebook_size": 64, "base_channels": 32, "channel_multiplier": [1, 2], "num_res_blocks": 1}),
    (("lightglue",), {"depth_confidence": -1.0, "width_confidence": -1.0}),  # as many layers whatever they compute
    (("granite4_vision",), {"downsample_rate": "1/2", "deepstack_layer_map": [[1, 0]],
                            "spatial_target_layers": [0, 1, 0, 1]}),
    (("exaone4_5_vision", "qwen2_5_omni_vision_encoder"), {"window_size": 4 * PATCH}),
    (("dbrx",), {"attn_config.rope_theta": 1e4, "attn_config.clip_qkv": 8.0}),
    (("seggpt",), {"image_size": [2 * IMAGE, IMAGE], "pretrain_image_size": IMAGE, "num_hidden_layers": 6,
                   "intermediate_hidden_state_indices": [2, 3, 4, 5], "merge_index": 1}),
    (("moonshine_streaming",), {"num_key_value_heads": HEADS}),
    (("xlstm",), {"qk_dim_factor": 1.0}),
    (("ernie4_5_vl_moe_text",), {"rope_parameters": {
        "rope_type": "default", "rope_theta": 1e4, "mrope_section": [3, 3, 2]}}),
    (("deepseek_ocr2_text",), {"mlp_layer_types": ["dense", "sparse"], "num_hidden_layers": 2,
                               "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}),
    (("qwen3_omni_moe_talker_text",), {"shared_expert_intermediate_size": INNER}),
    (("diffusion_gemma_text",), {"num_experts": 4, "top_k_experts": 2, "moe_intermediate_size": INNER}),
    (("muse_spark_audio",), {"patch_sizes": [16, 5], "hidden_sizes": [32, WIDTH], "depths": [1, 1]}),
    (("wavtokenizer_encoder",), {"codebook_dim": WIDTH}),
    (("apertus1p5",), {"*codebook_size": 32, "image_token_offset": 40, "audio_token_offset": 72}),
    (("uvdoc",), {"backbone_config": UVDocBackboneConfig(out_features=[f"stage{i}" for i in range(1, 7)])}),
    (("pp_ocrv5_server_det",), _INTRACLASS),
    (("pp_ocrv6_medium_det",), {**_INTRACLASS, "backbone_config": _LCNET}),
    (("pp_ocrv6_small_det",), {"backbone_config": _LCNET, "layer_list_out_channels": [32, 48, 64, 96]}),
    (("vibevoice_acoustic_tokenizer_encoder", "vibevoice_acoustic_tokenizer_decoder", "vibevoice_acoustic_tokenizer"),
     {"num_filters": 4, "downsampling_ratios": [2, 2, 4], "depths": [1, 1, 1, 1]}),
    (("sapiens2",), {"head_config.upsample_out_channels": [32, 32], "head_config.conv_out_channels": [32]}),
    (("t5gemma2_encoder",), {"text_config.dropout_rate": 0.0}),
    (("nemotron_h_omni",), {"vision_config.video_temporal_patch_size": 2}),
    (("molmo2",), {"adapter_config.vision_feature_layer": [-1, -2]}),
    (("dots1",), {"n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1,
                  "num_experts_per_tok": 2}),
)  # fmt: skip
OVERRIDES = {model_type: fields for model_types, fields in _OVERRIDES_OF for model_type in model_types}
