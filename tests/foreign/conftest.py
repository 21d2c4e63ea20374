"""These files are run by `python -m tests.foreign`, in environments that have what they import."""

collect_ignore_glob = ["life.py", "__main__.py", "projects/*"]
