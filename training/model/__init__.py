"""The network: its sizes, its parts, and how released checkpoints name them."""
