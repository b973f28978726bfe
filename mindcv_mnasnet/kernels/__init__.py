"""CPU operators of our own: what is between a network's 1x1 convolutions, a channel at a time."""
