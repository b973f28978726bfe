"""Image folders, MindRecord packs and the built-in digits, as batches of uint8 pictures.

``sets`` opens what a recipe names as a ``listing.Listing``; ``pipeline`` turns a listing into batches.
"""
