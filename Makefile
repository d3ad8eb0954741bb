# The whole vocabulary of this project; `make help` says it.
#
# Builds and the lab's parts go into one cache outside the checkout, so that a second clone is quick. Nothing depends on
# its being there.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/spotkeeper
export CARGO_TARGET_DIR ?= $(CACHE)/target
export SPOTKEEPER_CACHE ?= $(CACHE)

MUSL := $(shell uname -m)-unknown-linux-musl
RELEASE := $(CARGO_TARGET_DIR)/$(MUSL)/release/spotkeeper-agent
STATIC := CC_$(subst -,_,$(MUSL))=musl-gcc cargo build --release --locked --target $(MUSL) --no-default-features
CARGO_DENY := 0.20.2
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
IMAGES := $(CARGO_TARGET_DIR)/images
# No daemon, no user namespaces, no overlay file system: it works in a container as well.
BUILDAH := STORAGE_DRIVER=vfs BUILDAH_ISOLATION=chroot buildah

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

.PHONY: demo
demo: tools parts ## See it work: a real control plane, three nodes, three notices, spot dry and back again
	@cargo test --quiet --features agent,provisioner --test demo --no-run
	@cargo test --quiet --features agent,provisioner --test demo

.PHONY: test
test: tools parts image ## Every test, on a real control plane and in a real browser: what CI runs
	$(call need,chromium,chromium)
	cargo check --lib --no-default-features
	SPOTKEEPER_IMAGE=$(IMAGES)/spotkeeper-agent.tar cargo test --features agent
	cargo test --features plan --test plan_live
	cargo test --profile verify --no-default-features --features model --test model
	cargo test --features agent,provisioner --lib --test capacity --test generated --test provisioner_cli

.PHONY: verify
verify: tools ## Go far: models with two mishaps at once, 100,000 drawn worlds of each core (minutes to hours)
	SPOTKEEPER_MODEL_DEVIATIONS=2 cargo test --profile verify --no-default-features --features model --test model -- --nocapture
	SPOTKEEPER_SIM_SEEDS=100000 SPOTKEEPER_SUPPLY_SEEDS=100000 SPOTKEEPER_SYSTEM_SEEDS=10000 cargo test --profile verify --no-default-features \
	  --features sim --test sim --test supply --test system -- --nocapture the_invariants

.PHONY: check
check: tools ## Format, lints in every feature set, the pure core alone, licences and sources of dependencies
	cargo fmt --check
	cargo check --lib --no-default-features
	cargo clippy --all-targets --features agent -- -D warnings
	cargo clippy --all-targets --features agent,provisioner -- -D warnings
	cargo clippy --bins --no-default-features --features provisioner -- -D warnings
	cargo clippy --lib --no-default-features --features sim -- -D warnings
	cargo clippy --bins --no-default-features --features cli -- -D warnings
	cargo clippy --bins --test plan_live --no-default-features --features plan -- -D warnings
	cargo clippy --bins --no-default-features --features agent -- -D warnings
	! cargo tree --no-default-features --features agent --edges normal | grep aws-sdk-ec2
	! cargo tree --edges normal | grep -E 'aws-|kube|tokio'
	! cargo tree --no-default-features --features plan --edges normal | grep -E 'aws-(sdk|config)'
	@command -v cargo-deny >/dev/null || cargo install --locked --root $(CACHE)/tools cargo-deny@$(CARGO_DENY)
	PATH="$(CACHE)/tools/bin:$$PATH" cargo deny --offline check bans licenses sources
	PATH="$(CACHE)/tools/bin:$$PATH" cargo deny --offline --all-features check licenses sources

.PHONY: bench pace
bench: tools parts release pace ## Measure it: prints a table, writes JSON (about a quarter of an hour)
	SPOTKEEPER_AGENT=$(RELEASE) SPOTKEEPER_PROVISIONER=$(dir $(RELEASE))spotkeeper-provisioner \
	  SPOTKEEPER_BENCH_JSON=$(CARGO_TARGET_DIR)/bench.json cargo test --features agent,provisioner --test bench

pace: ## Measure the simulators alone: no lab, no AWS crate
	cargo test --release --test pace

.PHONY: generate
generate: ## Write what is generated from the Rust types: manifests/crd
	SPOTKEEPER_GENERATE=1 cargo test --features agent --test generated

.PHONY: release
release: agent ## The static release binaries of both programs (the AWS SDK for EC2 takes ten minutes and 8 GB)
	$(STATIC) --features provisioner --bin spotkeeper-provisioner

.PHONY: agent
agent: tools ## The static release binary of the agent alone
	rustup target list --installed | grep -qx $(MUSL) || rustup target add $(MUSL) || rustup target add $(MUSL)
	$(call need,musl-gcc,musl-tools)
	$(call need,update-ca-certificates,ca-certificates)
	$(STATIC) --features agent --bin spotkeeper-agent

.PHONY: image
image: agent ## The agent's container image, with this machine's binary, as an OCI archive (buildah)
	$(call image,agent)

.PHONY: images
images: image release ## The container images of both programs, and their tests
	$(call image,provisioner)
	for program in agent provisioner; do \
	  SPOTKEEPER_IMAGE=$(IMAGES)/spotkeeper-$$program.tar SPOTKEEPER_IMAGE_OF=$$program cargo test --features agent --test image; done

.PHONY: parts
parts: ## The lab's parts: etcd, the control plane, kwok, mocks of AWS
	@tests/lab/parts.sh >/dev/null

.PHONY: tools
tools: ## What everything needs: installed where that can be done without asking, else named
	$(call need,cargo,,Rust 1.95 from https://rustup.rs)
	@cargo --version >/dev/null 2>&1 || rustup toolchain install --no-self-update
	$(call need,go,,Go 1.26 from https://go.dev/dl)
	$(call need,cc,gcc)
	$(call need,python3,python3 python3-venv)
	$(call need,openssl,openssl)

# image PROGRAM: puts the binary that is built, and the certificate authorities, into the image that the Dockerfile says.
define image
	$(call need,buildah,buildah)
	rm -rf $(IMAGES)/$(1) $(IMAGES)/spotkeeper-$(1).tar
	install -D $(dir $(RELEASE))spotkeeper-$(1) $(IMAGES)/$(1)/spotkeeper-$(1)
	install -D -m 644 /etc/ssl/certs/ca-certificates.crt $(IMAGES)/$(1)/etc/ssl/certs/ca-certificates.crt
	$(BUILDAH) build --target $(1) --build-context $(1)-files=$(IMAGES)/$(1) --tag spotkeeper-$(1):$(VERSION) .
	$(BUILDAH) push -q spotkeeper-$(1):$(VERSION) oci-archive:$(IMAGES)/spotkeeper-$(1).tar
	@echo "the image is $(IMAGES)/spotkeeper-$(1).tar"
endef

# need COMMAND,DEBIAN PACKAGES[,WORDS]: installs what is missing where that can be done without asking, else names it.
define need
@command -v $(1) >/dev/null || { \
  if [ -n "$(strip $(2))" ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
    echo "installing $(2)" >&2; (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $(2)) >&2; \
  else echo "$(1) is missing; install it: $(or $(3),apt-get install $(2))" >&2; exit 1; fi; }
endef
