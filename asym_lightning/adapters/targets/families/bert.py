"""BERT and the encoders after it: RoBERTa, ELECTRA, ALBERT, DistilBERT, DeBERTa."""

from asym_lightning.adapters.targets.families.family import Family, register_family
from asym_lightning.adapters.targets.families.layouts import interleaved

_O = ("attention.output.dense",)
_MLP = ("intermediate.dense", "layer.*.output.dense")

register_family(
    Family(
        {
            "q": ("attention.self.query",),
            "k": ("attention.self.key",),
            "v": ("attention.self.value",),
            "o": _O,
            "mlp": _MLP,
        },
        model_types=("bert", "roberta", "xlm-roberta", "camembert", "electra", "roberta-prelayernorm"),
    )
)
register_family(
    Family(
        {
            "q": ("attention.query",),
            "k": ("attention.key",),
            "v": ("attention.value",),
            "o": ("attention.dense",),
            "mlp": ("ffn", "ffn_output"),
        },
        model_types=("albert",),
    )
)
register_family(
    Family(
        {
            "q": ("attention.q_lin",),
            "k": ("attention.k_lin",),
            "v": ("attention.v_lin",),
            "o": ("attention.out_lin",),
            "mlp": ("ffn.lin1", "ffn.lin2"),
        },
        heads=("pre_classifier", "classifier", "qa_outputs"),
        model_types=("distilbert",),
    )
)
register_family(
    Family(
        {"o": _O, "mlp": _MLP},
        fused={"attention.self.in_proj": interleaved("num_attention_heads")},
        heads=("pooler", "classifier"),
        model_types=("deberta",),
    )
)
register_family(
    Family(
        {
            "q": ("attention.self.query_proj",),
            "k": ("attention.self.key_proj",),
            "v": ("attention.self.value_proj",),
            "o": _O,
            "mlp": _MLP,
        },
        heads=("pooler", "classifier"),
        model_types=("deberta-v2",),
    )
)
