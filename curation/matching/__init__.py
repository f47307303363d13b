"""What is the same: evidence that a training clip and a held-out clip share content."""
