"""Training and evaluation: job, loop, compiled steps, optimizers, losses, metrics."""
