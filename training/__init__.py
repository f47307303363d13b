"""Shards → weights → sound: trains the MM-DiT on the tensors of `features`."""
