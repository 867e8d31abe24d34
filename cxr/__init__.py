"""Chest X-ray classification whose numbers can be believed. Research use only."""
