.PHONY: demo serve test test-all check audit lock

demo: .venv/installed
	.venv/bin/contract-feedback demo

serve: .venv/installed
	.venv/bin/contract-feedback serve

IN_GROUPS = --dist loadgroup --no-loadscope-reorder

test: .venv/installed
	.venv/bin/pytest -m "not slow" -n 2 $(IN_GROUPS)

test-all: .venv/installed
	.venv/bin/pytest -n 3 $(IN_GROUPS)

check: .venv/installed
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && .venv/bin/lint-imports

audit: .venv/installed
	@if curl --silent --fail --output /dev/null https://pypi.org/pypi/pip/25.0/json; \
	then .venv/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock; \
	else echo "pip-audit is skipped: PyPI's list of vulnerabilities cannot be reached from here"; fi

lock: .venv/installed
	.venv/bin/uv pip compile pyproject.toml --quiet --upgrade --extra dev --universal --python-version 3.11 \
	--generate-hashes --no-emit-package torch --no-header --output-file requirements.lock

.venv/installed: pyproject.toml requirements.lock
	python3 -m venv .venv
	.venv/bin/pip install --quiet --require-hashes --no-deps --requirement requirements.lock
	.venv/bin/pip install --quiet --editable '.[dev]' && touch $@
