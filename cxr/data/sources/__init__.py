"""Adapters: one module per source of films, each yielding a manifest table."""
