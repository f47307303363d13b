"""Turns clips into tensors on disk; nothing of it is there yet, see `features/README.md`."""
