"""The first minutes on a device: what is installed, and whether it computes, trains and exports as it should.

Commands use it; parts run in processes of their own, so that one that fails or hangs does not end the rest.
"""
