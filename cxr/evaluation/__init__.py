"""What the test split says, with intervals."""
