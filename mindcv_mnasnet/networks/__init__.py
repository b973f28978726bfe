"""Descriptions of networks, their families, costs and published results, without a framework; anyone may use it."""
