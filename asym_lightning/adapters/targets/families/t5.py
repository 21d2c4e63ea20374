"""T5, mT5 and umT5."""

from asym_lightning.adapters.targets.families.family import Family, register_family

register_family(
    Family(
        {
            **{role: (f"SelfAttention.{role}", f"EncDecAttention.{role}") for role in "qkvo"},
            "mlp": tuple(f"DenseReluDense.{name}" for name in ("wi", "wi_0", "wi_1", "wo")),
        },
        heads=("classification_head", "qa_outputs"),
        model_types=("t5", "mt5", "umt5"),
    )
)
