"""Our figures beside published ones: python -m experiments.published, or make experiment NAME=published."""
