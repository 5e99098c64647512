"""The environment variables of an installation: those of `installation.env`, and those that depend on its folder."""

import os
from importlib.resources import files
from io import StringIO
from pathlib import Path

import certifi
from dotenv import dotenv_values

PACKAGED = "packaged"  # embeddinggemma_feasibility.encoders has it, too, but imports torch


def read_installation_file() -> dict[str, str]:
    """Return the variables of `installation.env`; one that is set in this process has its value there."""
    variables = dotenv_values(stream=StringIO((files("cli") / "installation.env").read_text()))
    return {name: os.environ.get(name, value) for name, value in variables.items() if value is not None}


def read_installation_variables() -> dict[str, str]:
    """Return the variables of `installation.env` that are not set in this process."""
    return {name: value for name, value in read_installation_file().items() if name not in os.environ}


def build_environment(
    folder: Path, api_url: str, prefect_url: str, mlflow_url: str, encoder: str, database_url: str
) -> dict[str, str]:
    """Return the environment of the processes of an installation with its data in `folder`."""
    is_local = encoder == PACKAGED or Path(encoder).is_dir()
    return (
        {"CONTRACT_FEEDBACK_PUBLIC_URL": api_url}
        | os.environ
        | read_installation_variables()
        | {
            "CONTRACT_FEEDBACK_DATABASE_URL": database_url,
            "CONTRACT_FEEDBACK_DOCUMENT_STORE_URL": str(folder / "documents"),
            "CONTRACT_FEEDBACK_CACHE_FOLDER": str(folder / "cache"),
            "CONTRACT_FEEDBACK_MLFLOW_TRACKING_URI": mlflow_url,
            "CONTRACT_FEEDBACK_ENCODER": str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder,
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": f"{prefect_url}/api",
            "PREFECT_UI_URL": prefect_url,
            "PREFECT_API_SSL_CERT_FILE": str(write_one_certificate(folder)),
        }
        | ({"HF_HUB_OFFLINE": "1"} if is_local else {})
    )


def write_one_certificate(folder: Path) -> Path:
    """Write the first of certifi's certificates to a file of its own and return the file.

    Every Prefect client loads `PREFECT_API_SSL_CERT_FILE`, even for plain HTTP; certifi's whole file takes 25 ms.
    """
    file, end = folder / "certificate.pem", "-----END CERTIFICATE-----\n"
    file.write_text(Path(certifi.where()).read_text().split(end)[0] + end)
    return file
