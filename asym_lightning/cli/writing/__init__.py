"""Language models that write: what a command line names, with adapters by name, and prompts in a template."""
