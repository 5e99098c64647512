"""What the tests share: no telemetry, no network, generated contracts, a tiny encoder, whole installations."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read when torch is imported; threads that spin slow other processes down

import pytest
import torch
from mlflow import MlflowClient
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlmodel import Session
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cli.installation import ANY_PORTS, Stack, run_stack
from demo.client import ContractReviewer
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.contract_data_trainer import FineTuningResult, fine_tune_model
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from registry.database import build_engine, migrate, migrate_database
from registry.settings import Settings
from tests.faults import BreakableInstallation
from tests.postgresql import PostgreSQL, create_database, find_programs, run_postgresql
from tests.running_api import RunningApi, run_api

SHARED_INSTALLATIONS = ("stack", "elsewhere", "reviewing")
ELSEWHERE = "127.0.0.2"  # not LOOPBACK, yet no other machine reaches it


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist's own, which reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Group the tests for pytest-xdist: those marked so, the users of a shared installation, the tests of a file."""

    def find_group(item: pytest.Item) -> str:
        if marked := item.get_closest_marker("xdist_group"):
            return str(marked.args[0])
        fixtures = getattr(item, "fixturenames", ())
        return next((name for name in SHARED_INSTALLATIONS if name in fixtures), item.nodeid.partition("::")[0])

    groups = {item: find_group(item) for item in items}
    for item, group in groups.items():
        item.add_marker(pytest.mark.xdist_group(group))
    if hasattr(config, "workerinput"):  # pytest-xdist distributes the groups in this order: the longest first
        slow = {group for item, group in groups.items() if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (groups[item] not in slow, groups[item] not in SHARED_INSTALLATIONS))


@pytest.fixture(scope="session", autouse=True)
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run the tests in a temporary folder, where the default settings' `.local` is, and check the repository's."""
    repository = Path(__file__).parents[1]
    before = {*repository.glob(".local"), *repository.glob(".local/*")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("working-folder"))
        yield
    after = {*repository.glob(".local"), *repository.glob(".local/*")}
    assert after == before, "The tests have written to the repository's .local"


@pytest.fixture(scope="session")
def contracts() -> list[AnnotationData]:
    generated = [generate_contract(seed) for seed in range(8)]
    return [AnnotationData(contract.filename, contract.text, contract.spans) for contract in generated]


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory, contracts: list[AnnotationData]) -> Encoder:
    """An untrained BERT of two layers whose pieces are the contracts' words and single characters."""
    folder = tmp_path_factory.mktemp("tiny-encoder")
    text = " ".join(data.text for data in contracts).lower()
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *sorted(set(text.split()) | set(text) | {f"##{c}" for c in set(text)}),
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)  # type: ignore[no-untyped-call]
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=300,
    )
    BertModel(config).save_pretrained(folder)
    return load_encoder(str(folder))


@pytest.fixture(scope="session")
def tuned(contracts: list[AnnotationData], tiny_encoder: Encoder) -> FineTuningResult:
    """What training on the contracts makes; tests must not change it."""
    return fine_tune_model(contracts, encoder=tiny_encoder)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with run_postgresql(programs) as server:
        yield server


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database of the newest schema, to be copied: the migrations take longer than most tests."""
    file = tmp_path_factory.mktemp("migrated") / "test.db"
    migrate_database(Settings(database_url=SecretStr(f"sqlite:///{file}")))
    return file


@pytest.fixture(scope="session")
def migrated_database(postgresql: PostgreSQL) -> str:
    """The URL of a database of PostgreSQL, of the newest schema, to be copied."""
    database_url = create_database(postgresql)
    migrate_database(Settings(database_url=SecretStr(database_url)))
    return database_url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of each kind; a test file that needs only one overrides this fixture."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    return create_database(request.getfixturevalue("postgresql"), request.getfixturevalue("migrated_database"))


@pytest.fixture(scope="session")
def empty_mlflow_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied: MLflow takes 0.6 s to create its tables."""
    file = tmp_path_factory.mktemp("mlflow-store") / "mlflow.db"
    MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture
def settings(
    tmp_path: Path, tiny_encoder: Encoder, database_url: str, migrated_file: Path, empty_mlflow_store: Path
) -> Settings:
    """An installation of the tiny encoder, without a version; its database has the newest schema."""
    if database_url.startswith("sqlite:///"):
        shutil.copy(migrated_file, database_url.removeprefix("sqlite:///"))
    shutil.copy(empty_mlflow_store, tmp_path / "mlflow.db")
    return Settings(
        database_url=database_url,
        document_store_url=str(tmp_path / "documents"),
        mlflow_tracking_uri=f"sqlite:///{tmp_path}/mlflow.db",
        encoder=tiny_encoder.name,
        cache_folder=str(tmp_path / "cache"),
    )


@pytest.fixture
def engine(settings: Settings) -> Iterator[Engine]:
    engine = build_engine(settings)
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with Session(engine) as session:
        yield session


@pytest.fixture
def api(settings: Settings) -> Iterator[RunningApi]:
    with run_api(settings) as api:
        yield api


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real Prefect server, worker, MLflow and API, on the packaged encoder."""
    with run_stack(tmp_path_factory.mktemp("stack") / "data", ANY_PORTS) as stack:
        yield stack


@pytest.fixture(scope="session")
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """An installation whose servers ask for a password, on PostgreSQL if that is installed; its worker never polls.

    The worker hears of a run from the server's events, or not at all. Logs are JSON.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    database_url = create_database(request.getfixturevalue("postgresql")) if find_programs() else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "3600")
        patch.setenv("CONTRACT_FEEDBACK_LOG_FORMAT", "json")
        with run_stack(folder, ANY_PORTS, host=ELSEWHERE, database_url=database_url) as stack:
            patch.undo()  # these variables are for the installation alone
            yield stack
    assert (folder / "contract-feedback.db").exists() == (database_url is None)


@pytest.fixture(scope="module")
def breakable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BreakableInstallation]:
    """An installation with a champion, whose flow kills processes on demand.

    It looks for silent runs and for waiting jobs every second, not every 5 s, so that the tests take less time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_SERVER_EVENTS_PROACTIVE_GRANULARITY", "PT1S")
        patch.setenv("CONTRACT_FEEDBACK_LAUNCH_SECONDS", "1")
        with run_stack(tmp_path_factory.mktemp("breakable"), ANY_PORTS) as stack:
            installation = BreakableInstallation(stack)
            installation.deploy_faulty_flow()
            installation.check_learned(installation.feed_back())
            yield installation


@pytest.fixture(scope="session")
def client(stack: Stack) -> ContractReviewer:
    return ContractReviewer(stack.api_url, stack.api_key)
