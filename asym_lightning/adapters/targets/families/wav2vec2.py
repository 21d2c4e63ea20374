"""Wav2Vec2, HuBERT and WavLM."""

from asym_lightning.adapters.targets.families.family import Family, register_family

register_family(
    Family(
        {
            "q": ("attention.q_proj",),
            "k": ("attention.k_proj",),
            "v": ("attention.v_proj",),
            "o": ("attention.out_proj",),
            "mlp": ("feed_forward.intermediate_dense", "feed_forward.output_dense"),
        },
        heads=("projector", "classifier"),
        model_types=("wav2vec2", "hubert", "wavlm"),
    )
)
