"""Revisions of the database's tables, applied by Alembic at the start or by ``db upgrade``."""
