"""A REST API for storing and managing contacts."""

import gc

__version__ = "0.1.0"

# What is imported stays, and a request leaves few cycles: at 2,000 or less, a tenth of the start went into looking.
gc.set_threshold(10_000)
