"""What happens to a module with adapters from build to checkpoint."""
