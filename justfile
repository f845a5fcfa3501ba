# `verify` never writes, `fix` does.

# Everything that has to pass before a change lands.
verify:
    .ci/run

# Formats and applies what clippy is sure about.
fix:
    cargo fmt --all
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged

# A local ensemble of three.
up *ARGS:
    cargo run --release -- up {{ARGS}}

# Only the pure cores: seconds.
cores:
    cargo test -p api -p election-core -p quorum-core -p quorum-log -p store-core -p client-core

# Whole ensembles of real processes.
ensemble *ARGS:
    cargo test -p quorate --test ensemble -- {{ARGS}}

# The same with a process for each service of a node.
ensemble-split *ARGS:
    TEST_SPLIT=1 cargo test -p quorate --test ensemble -- {{ARGS}}

# Image, Compose files and Kubernetes manifests, as far as there are tools for it.
deploy *ARGS:
    cargo test -p quorate --test deploy -- --nocapture {{ARGS}}

# Whole ensembles in simulated time, under faults drawn from seeds.
sim *ARGS:
    cargo run --release -p sim -- {{ARGS}}

# Whether the simulator finds what it should.
mutants *ARGS:
    cargo run --release -p sim --features mutants -- --mutants {{ARGS}}

# Fresh seeds for the property tests, the simulator and torture, these two for MINUTES each. Each prints its seeds.
hunt MINUTES:
    seed=$(date +%s) && echo "property tests: PROPTEST_RNG_SEED=$seed" && \
        PROPTEST_RNG_SEED=$seed cargo test --quiet -p election-core -p quorum-core -p quorum-log -p store-core -p history
    cargo run --release -p sim -- --minutes {{MINUTES}} --failures 10
    cargo run --release -p torture -- --duration {{MINUTES}}m

# Licences, banned and doubled crates, their sources, and security advisories as of now; needs cargo-deny.
deny:
    cargo deny --locked check

# Lines of production code for each crate.
lines:
    .ci/lines

# Every state of small ensembles.
explore *ARGS:
    cargo run --release -p explore -- {{ARGS}}

# Real processes under real faults.
torture *ARGS:
    cargo run --release -p torture -- {{ARGS}}
