"""From the media of a clip to what the encoders see, in processes that feed them."""
