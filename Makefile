# `make run` and `make test` set up everything they need. `make help` lists the rest.

PY := .venv/bin/python
LINT = $(PY) -m ruff format --check . && $(PY) -m ruff check . && $(PY) -m mypy
# Four workers for two cores, as the tests wait much; which tests go together: tests/order.py.
SIDE_BY_SIDE = -n 4 --dist loadfile
export PYTHON
OLDER = 3.11 3.12
unexport PYTHONDONTWRITEBYTECODE # what is imported at each start is compiled once

.PHONY: help run run-functions test check older setup stores dist dist-test docs pictures bench bench-full chains langgraph fronts chaos contract fuzz audit licences sbom tools clean
.DEFAULT_GOAL := help

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile
	@printf '\n  ARGS=...\tis handed on to pytest, bench or the server\n'
	@printf '  PYTHON=...\tuses that interpreter instead of the newest one found\n'

run: ## gateway, workers and the web page, in one process
	@scripts/setup run
	@exec $(PY) -m gateway all $(ARGS)

run-functions: setup ## the same, in Azure Functions' own runtime, with Azurite for Storage
	@$(PY) -m tests.functions_host.local $(ARGS)

test: setup ## lint, types and every test
	@# One process collects beside mypy: it compiles every module once, and not each of the four workers all of them.
	@($(LINT)) & lint=$$!; $(PY) -m pytest --collect-only -q >/dev/null 2>&1; wait $$lint
	@$(PY) -m pytest $(SIDE_BY_SIDE) $(ARGS)

check: setup ## lint, types and the quick tests
	@$(LINT)
	@$(PY) -m pytest -m "not slow" $(ARGS)

older: setup ## the quick tests on OLDER (3.11 3.12), the Pythons before the newest one
	@unset PYTHON; OLDER="$(OLDER)" scripts/setup older
	@for version in $(OLDER); do \
		echo "[older] $$version"; build/older-$$version/bin/python -m pytest -m "not slow" $(ARGS) || exit 1; done

setup: ## .venv, redis-server, chromium, Node's packages; quick when nothing changed
	@scripts/setup test

stores: setup ## every store test on Redis 6.2, on the redis-server on PATH and on Valkey 9
	@$(PY) -m pytest --stores $(SIDE_BY_SIDE) $(ARGS)

dist: ## dist/: wheel, sdist and npm's tarball, of one version
	@scripts/setup dist
	@scripts/dist

dist-test: dist ## that wheel with each extra, from the registry, in empty folders: install, serve, stream, resume
	@$(PY) -m tests.dist_walk $(ARGS)

docs: ## build/site: the documentation as a site, links checked
	@scripts/setup docs
	@NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs build --quiet
	@echo build/site/index.html

pictures: setup ## docs/images/page-*.png: the page as it looks now; look at them before they are committed
	@$(PY) -m tests.pictures

bench: setup ## measurements against baselines, under ten minutes; table and plots in bench/results
	@$(PY) -m bench $(ARGS)

bench-full: setup ## also how cost grows, and what no bar is set for
	@$(PY) -m bench --full

chains: setup ## chains as people write them, by the gateway and by themselves; ARGS: cases or groups
	@$(PY) -m tests.chains $(ARGS)

langgraph: setup ## LangGraph's clients, against LangGraph's own server and the gateway; ARGS: cases or groups
	@$(PY) tests/formats/langgraph/run.py $(ARGS)

fronts: setup ## front ends that others wrote, each in its newest version, on the gateway: client by case; ARGS: names
	@$(PY) -m tests.fronts $(ARGS)

chaos: setup ## kills, cuts and pauses everything for SECONDS (600); SEED, STORE=aof|replicated|both, PLANNED=yes
	@$(PY) -m tests.chaos --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) \
		$(if $(STORE),--store $(STORE)) $(if $(PLANNED),--planned)

contract: setup ## CASES (10000) requests to each host, made up from its /openapi.json, SEED as you like
	@$(PY) -m tests.contract --cases $(or $(CASES),10000) $(if $(SEED),--seed $(SEED))

fuzz: tools ## the parsers, coverage-guided, for SECONDS (600) in all; what is found stays in tests/fuzz/corpus
	@$(PY) -m tests.fuzz --seconds $(or $(SECONDS),600) $(ARGS)

audit: tools ## what is known against any installed package (docs/supply.md)
	@$(PY) -m tests.supply audit

licences: tools ## docs/licences.md
	@$(PY) -m tests.supply licences

sbom: tools ## bills of materials: build/sbom-*.json
	@$(PY) -m tests.supply sbom

tools:
	@scripts/setup tools

clean: ## removes what make has made
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/node/node_modules
	find . -name __pycache__ -prune -exec rm -rf {} +
