"""From a manifest and its media to shards: what there is to do, who does it, and the record of it."""
