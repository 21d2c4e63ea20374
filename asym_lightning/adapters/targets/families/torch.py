"""torch's own attention and transformer layers, in a model of any family."""

from asym_lightning.adapters.targets.families.family import Family, register_family

register_family(Family({"o": ("out_proj",)}, heads=(), packages=("torch.nn.modules.activation",)))
register_family(Family({"mlp": ("linear1", "linear2")}, heads=(), packages=("torch.nn.modules.transformer",)))
