"""Networks for other runtimes: MindIR, ONNX and TFLite files, proven equal to their checkpoint."""
