# The project's commands. `make` alone lists them; the work is in scripts/ and in cargo.
.DEFAULT_GOAL := help
.PHONY: help build test demo lint fmt fixtures bench benchdevice benchremote fuzz soak zoo clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## the release binary, target/release/hyper2kvm
	@scripts/install-deps.sh
	cargo build --release --locked

test: ## everything: lints, unit tests, fuzz smoke, integration, boots of real guests
	@scripts/test.sh

demo: ## migrate a VMware guest from beginning to end, and boot it
	@scripts/demo.sh

lint: ## formatting, leftovers, clippy
	@scripts/lint.sh

fmt: ## format the code
	cargo fmt --all

fixtures: ## build the guests that the tests use (cached)
	@scripts/install-deps.sh
	@tests/fixtures/build.sh

bench: ## time migrate and convert against qemu-img, in alternating pairs
	@scripts/bench.sh

benchdevice: ## time serve and mount against nbdkit, qemu-nbd, nbdfuse and qemu-storage-daemon, in alternating pairs
	@scripts/bench-device.sh

benchremote: ## time disks on web, SSH and NBD servers at the end of a long line against curl, qemu-img, nbdkit and nbdcopy, as root
	@scripts/bench-remote.sh

fuzz: ## fuzz every target for SECONDS=60 (or TARGETS="a b")
	@scripts/fuzz.sh $(or $(SECONDS),60) $(TARGETS)

soak: ## kill and restart migrations for MINUTES=60
	@scripts/soak.sh $(or $(MINUTES),60)

zoo: ## compare volumes and guests of many layouts with what a kernel, guestfish and virt-inspector read
	@scripts/zoo.sh

clean: ## remove what was built here (make's fixtures stay; tests/fixtures/build.sh --prune trims those)
	cargo clean
	rm -rf fuzz/target fuzz/artifacts
