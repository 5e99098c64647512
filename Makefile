.PHONY: demo test serve check

demo: .venv/installed
	.venv/bin/contract-feedback demo

serve: .venv/installed
	.venv/bin/contract-feedback serve

test: .venv/installed
	.venv/bin/pytest

check: .venv/installed
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && .venv/bin/lint-imports

.venv/installed: pyproject.toml
	python3 -m venv .venv && .venv/bin/pip install --quiet --editable '.[dev]' && touch $@
