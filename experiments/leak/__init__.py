"""What a leak is worth: python -m experiments.leak."""
