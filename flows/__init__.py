"""The Prefect flow with its tasks and artifacts."""
