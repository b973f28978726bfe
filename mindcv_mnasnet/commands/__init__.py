"""The commands of ``mnasnet`` and of the scripts in tools/: each parses its command line and calls the package."""
