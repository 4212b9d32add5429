"""A REST API for storing and managing contacts."""

__version__ = "0.1.0"
