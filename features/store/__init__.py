"""Shards on disk: their files, the tables beside them, sealing, reading and checking."""
