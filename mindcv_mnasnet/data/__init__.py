"""Image folders, MindRecord packs and the built-in digits, as batches of uint8 images.

``sets`` opens what a recipe names as a ``index.ImageIndex``; ``pipeline`` turns an image index into batches.
"""
