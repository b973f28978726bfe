"""A supernet: one network whose weights all candidates share, its training and its ranking."""
