# Everything a contributor needs. `make demo` and `make test` do their own set-up.
SHELL := /bin/bash
export PATH := $(CURDIR)/third_party/node/bin:$(PATH)
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Programs only. `make test` adds its test binaries to the same artefacts: profile and features are the same
# (a house rule compares them), so that nothing is compiled twice.
BUILD := cargo build --release --locked

.PHONY: help setup ui build demo picture test check bench fuzz sbom advisories clean

help:
	@echo "make demo    build everything and run the sample mesh with a planted regression"
	@echo "make picture take the README's screenshot from a running sample mesh"
	@echo "make test    all tests, including end-to-end and browser tests"
	@echo "make check   formatting, clippy, the UI's lint and types, licences, house rules"
	@echo "make bench   benches; NAME=proxy runs one; figures go to $(TARGET)/figures.json"
	@echo "make fuzz    search for inputs that break a decoder; MINUTES=10, NAME=pprof, PROGRAMS=1 for all decoders"
	@echo "make sbom    software bill of materials (CycloneDX) in $(TARGET)/emberline.cdx.json"

setup:
	@deploy/dev/setup.sh

ui: setup
	@npm run --silent --prefix web/ui build

build: ui
	$(BUILD)

demo: build
	$(TARGET)/release/emberline demo $(ARGS)

picture: build
	@deploy/dev/setup.sh browser
	node web/ui/e2e/picture.mjs $(abspath $(TARGET))/release/emberline docs/compare.png

test: ui
	@deploy/dev/setup.sh tests
	npm run --silent --prefix web/ui test
	$(BUILD)
	cargo test --release --locked --workspace --tests
	cargo test --release --locked --workspace --doc --quiet

# The UI is built first: its size is held to a budget.
check: ui
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	npm run --silent --prefix web/ui check
	cargo test --release --locked --workspace --test tidy

bench: build
	$(BUILD) --workspace --examples
	cargo bench --locked --workspace --bench figures -- $(NAME)

fuzz:
	MINUTES=$(or $(MINUTES),10) PROGRAMS=$(PROGRAMS) tests/fuzz/run.sh $(NAME)

sbom: setup
	$(BUILD) --workspace --example sbom
	$(TARGET)/release/examples/sbom > $(TARGET)/emberline.cdx.json
	@echo "$(TARGET)/emberline.cdx.json"

# FROM is a clone of the RustSec advisory database.
advisories:
	@test -d "$(FROM)/crates" || { echo "advisories: FROM=folder of a clone of the RustSec advisory database"; exit 1; }
	$(BUILD) --workspace --example advisories
	$(TARGET)/release/examples/advisories "$(FROM)" "$$(git -C "$(FROM)" log -1 --format=%cs)" "$$(git -C "$(FROM)" log -1 --format=%H)" > $(TARGET)/advisories.toml
	mv $(TARGET)/advisories.toml deploy/dev/advisories.toml

clean:
	cargo clean
	rm -rf web/ui/dist web/ui/node_modules third_party
