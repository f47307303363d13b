"""Trains on those tensors; nothing of it is there yet, see `training/README.md`."""
