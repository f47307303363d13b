"""The networks that turn sound, pictures and words into features, weight-compatible with published files."""
