"""torchvision."""

from asym_lightning.adapters.targets.families.family import Family, register_family

register_family(
    Family(
        {"mlp": ("mlp.0", "mlp.3")},
        heads=("heads", "head", "fc", "classifier"),
        packages=("torchvision.models",),
    )
)
