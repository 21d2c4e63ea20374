"""From names in a configuration to layers of a model."""
