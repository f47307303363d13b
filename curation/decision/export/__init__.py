"""Manifests in the formats of others: metadata only, never media."""
