# `just` lists these; each is one command that also works without just.

_default:
    @just --list

# everything CI runs
check *steps:
    scripts/check {{steps}}

# the tests, or those whose name contains FILTER
test *filter:
    scripts/setup test
    cargo test --features failpoints {{filter}}

# formats the code
fmt:
    cargo fmt --all

# clippy as CI runs it
lint:
    scripts/check fmt clippy

# the measured scenarios
bench *args:
    cargo run --release --quiet -p frazil-bench -- {{args}}

# this tree and REV side by side, A B A B on the same WAL: just bench-compare v0.1.0 mixed --scale 0.2
bench-compare rev *args:
    bench/compare {{rev}} {{args}}

# the demo
demo *args:
    ./demo {{args}}
