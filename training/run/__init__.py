"""A run: its loop, what guards it, and what one sees of it."""
