"""Shards from and to folders of TensorDict memmaps."""
