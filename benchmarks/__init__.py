"""Compares the cost of the API with code without a framework, and with the usual build. See --help."""
