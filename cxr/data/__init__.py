"""From public sources, a folder or the phantom to a prepared set."""
