"""Turns clips into tensors on disk: see `features/README.md`."""
