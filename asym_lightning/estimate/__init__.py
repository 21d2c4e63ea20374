"""What a training step takes of each device: memory, traffic and files, found without running it."""
