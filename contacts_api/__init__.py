"""A REST API for storing and managing contacts."""

import gc

__version__ = "0.1.0"

# What is imported stays: to look for cycles at every 700 objects of it, in vain, takes a tenth of the import.
gc.set_threshold(200_000)
