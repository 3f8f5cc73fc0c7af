# `make up` and `make test` are all that a fresh Debian 12 machine with Rust needs (as root).
SHELL := /bin/bash
.PHONY: up down test test-vm bench dist lint unit deps test-deps torture

# A cluster of one node on this machine, with an application on it.
up: deps
	scripts/up

down:
	scripts/down

# Everything: format, lints, licences, every test.
test: test-deps lint unit

# The whole-cluster tests on Debian's own kernel, with cgroup v2, in a virtual machine.
test-vm: test-deps
	scripts/test-vm

# Every figure, on a fresh cluster of its own.
bench: deps
	scripts/bench

# The program that is given away: a release build guided by a profile of itself at work.
dist: deps
	scripts/dist

test-deps:
	scripts/deps test

deps:
	scripts/deps

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	scripts/deny

unit:
	scripts/test

# The store and the node, killed, cut off and damaged for hours: `make torture COUNT=3` is three times as long.
torture: test-deps
	scripts/torture $(COUNT)
