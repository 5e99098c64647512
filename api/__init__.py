"""The HTTP service: routes, schemas, errors, authentication by API key; no rule of the loop."""
