"""What every route gets."""
