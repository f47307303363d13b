"""What a training run reads and draws: a pure function of seed, epoch, step and slot."""
