"""A REST API for storing and managing contacts."""

import gc

__version__ = "0.1.0"

# What is imported stays, and a request leaves few cycles: to look through them at every 700 took part of the start.
gc.set_threshold(10_000)
