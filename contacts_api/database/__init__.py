"""Everything PostgreSQL."""
