"""Latency of networks on devices: records, runtimes, commands, tables of parts."""
