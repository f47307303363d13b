"""Published weights: where they come from, whether they are what they should be, how they are loaded."""
