"""The learning: annotations in, a tagger out; no HTTP, database, Prefect or MLflow."""
