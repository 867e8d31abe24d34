"""Adapters: one module per source of images, each yielding a manifest table."""
