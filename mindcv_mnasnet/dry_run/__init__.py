"""Dry runs: any job compiled for NPUs and gone through without computing, on a machine that has none."""
