"""What takes a shortcut away, and what it costs: python -m experiments.mitigation."""
