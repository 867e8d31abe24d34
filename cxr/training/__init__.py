"""Members and their ensemble."""
