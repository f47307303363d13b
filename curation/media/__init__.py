"""What a clip looks and sounds like: its file, its frames and samples, and fingerprints of both."""
