"""Speed, memory and file size of the adapters beside their peers; ``python -m benchmarks --help``."""
