"""Our values beside published ones: python -m experiments.published."""
