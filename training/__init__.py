"""Shards → weights → sound: the MM-DiT, trained on the tensors of `features`; `python -m training.launch`."""
