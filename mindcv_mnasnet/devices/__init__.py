"""MindSpore's context, the process group and the machine; anyone may use it."""
