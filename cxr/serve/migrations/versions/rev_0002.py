"""Usage per user and day, filled from the history, and tokens that expire."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table and the column."""
    usage = op.create_table(
        "usage",
        sa.Column(
            "user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("origin", sa.String(8), primary_key=True),
        sa.Column("films", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
    )
    op.add_column("tokens", sa.Column("expires_at", sa.DateTime(timezone=True)))
    _count_history(usage)


def _count_history(usage: sa.Table) -> None:
    """Count what the history holds; days are taken here because databases name them differently."""
    history = sa.table(
        "predictions",
        sa.column("user_id", sa.Integer),
        sa.column("origin", sa.String),
        sa.column("created_at", sa.DateTime(timezone=True)),
        sa.column("refused", sa.Boolean),
    )
    connection = op.get_bind()
    counts: dict[tuple[object, ...], list[int]] = {}
    for row in connection.execute(sa.select(history)):
        count = counts.setdefault((row.user_id, row.created_at.date(), row.origin), [0, 0])
        count[0] += 1
        count[1] += bool(row.refused)
    names = ("user_id", "day", "origin", "films", "refused")
    rows = [dict(zip(names, (*key, *count), strict=True)) for key, count in counts.items()]
    if rows:
        connection.execute(usage.insert(), rows)


def downgrade() -> None:
    """Take both away."""
    op.drop_column("tokens", "expires_at")
    op.drop_table("usage")
