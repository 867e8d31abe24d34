"""One module per revision, oldest first by name. A revision that was released never changes."""
