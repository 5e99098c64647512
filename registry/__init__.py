"""What is stored: records in the database, files in the document store, models in MLflow."""
