"""What the tests share: no telemetry, no network, generated contracts, a tiny encoder, a whole installation."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from sqlalchemy import Engine
from sqlmodel import Session
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from cli.installation import ANY_PORTS, Stack, run_stack
from demo.client import ReviewerClient
from demo.contract_generator import generate_contract
from embeddinggemma_feasibility.annotation_data import AnnotationData
from embeddinggemma_feasibility.encoders import Encoder, load_encoder
from registry.database import build_engine, migrate
from registry.settings import Settings
from tests.postgresql import PostgreSQL, create_database, find_programs, run_postgresql

os.environ |= {"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}


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
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
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
def postgresql() -> Iterator[PostgreSQL]:
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with run_postgresql(programs) as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database; a test file that needs none overrides this, lest its tests run twice."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.db"
    return create_database(request.getfixturevalue("postgresql"))


@pytest.fixture
def settings(tmp_path: Path, tiny_encoder: Encoder, database_url: str) -> Settings:
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


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A real Prefect server, worker, MLflow and API, on the packaged encoder."""
    with run_stack(tmp_path_factory.mktemp("stack"), ANY_PORTS) as stack:
        yield stack


@pytest.fixture(scope="module")
def worker_that_does_not_ask() -> Iterator[None]:
    """Have the worker of a stack that is started now hear of each run from the server, or never."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_WORKER_QUERY_SECONDS", "3600")
        yield


@pytest.fixture(scope="session")
def client(stack: Stack) -> ReviewerClient:
    return ReviewerClient(stack.api_url, stack.api_key)
