"""BART and what is built like it, in text and in speech: mBART, Pegasus, OPT, M2M-100, Blenderbot, Whisper."""

from asym_lightning.adapters.targets.families.family import Family, register_family

register_family(
    Family(
        {
            "q": ("*attn.q_proj",),
            "k": ("*attn.k_proj",),
            "v": ("*attn.v_proj",),
            "o": ("*attn.out_proj",),
            "mlp": ("fc1", "fc2"),
        },
        heads=("classification_head", "qa_outputs", "score", "projector", "classifier"),
        model_types=("bart", "mbart", "pegasus", "whisper", "opt", "m2m_100", "blenderbot"),
    )
)
