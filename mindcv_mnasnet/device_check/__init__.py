"""The first minutes on a device: what is installed, and whether it computes, trains and exports as it should.

Commands use it; every part runs in a process of its own, so that one that fails or hangs does not end the rest.
"""
