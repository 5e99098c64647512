"""A typed Python client of the API."""
