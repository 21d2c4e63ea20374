"""Tables with a row a sample: files, splits of the hub, and what their cells say."""
