"""What a leak is worth: python -m experiments.leak, or make experiment NAME=leak."""
