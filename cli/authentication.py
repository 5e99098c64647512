"""Password protection of Prefect and MLflow, for an installation that listens on other addresses than 127.0.0.1."""

import secrets
from configparser import ConfigParser
from pathlib import Path

USER = "admin"


def keep_secret(file: Path, secret: str) -> str:
    """Return the content of `file`; if there is none, create it, readable by its owner only, with `secret`."""
    if not file.exists():
        file.touch(mode=0o600)
        file.write_text(secret)
    return file.read_text()


def require_password(folder: Path) -> dict[str, str]:
    """Return the variables by which both servers require the password in `folder` and their clients send it."""
    password = keep_secret(folder / "password", secrets.token_urlsafe(32))
    config = ConfigParser()
    config["mlflow"] = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": f"sqlite:///{folder}/mlflow-users.db",
        "admin_username": USER,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "grant_default_workspace_access": "false",
        "auth_cache_ttl_seconds": "60",  # without a cache every request hashes its password, which is slow on purpose
    }
    with (folder / "mlflow-authentication.ini").open("w") as file:
        config.write(file)
    return {
        "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{password}",
        "PREFECT_API_AUTH_STRING": f"{USER}:{password}",
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "mlflow-authentication.ini"),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": keep_secret(folder / "mlflow-secret", secrets.token_urlsafe(32)),
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": password,
    }
