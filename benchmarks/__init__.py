"""What the API costs beside code that has no framework, and beside the usual build; see --help."""
