"""What uses the package to answer a question; it knows nothing of them."""
