"""Operators of our own for the CPU: depthwise convolution, batch norm and ReLU, compiled on first use."""
