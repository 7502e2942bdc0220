"""An index by predicate type, so that a list of one kind of statement does not read all of them."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_index("envelope_by_type", "envelope", ["predicate_type", "seq"])
