"""Planted answers: a small offline corpus in the true formats."""
