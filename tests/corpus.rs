//! Every file of the fuzzers' corpora, through the same function as in the fuzzer: no nightly compiler needed.

use std::fs;
use std::path::Path;

use tokioloop::core::stream::Policy;
use tokioloop::sim::{Decode, accept, coalesce, datagram, interest, stream, tls, turn};

/// Every file; under Miri, which takes a hundred times as long, one of 32.
const EACH: usize = if cfg!(miri) { 32 } else { 1 };

/// Runs the corpus of `target`; a missing or empty corpus is a failure.
fn run_corpus(target: &str, run: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = files.map(|file| file.expect("a directory entry").path()).collect();
    paths.sort();
    let mut count = 0;
    for path in paths.into_iter().step_by(EACH) {
        let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // Shown by the test harness if the run panics.
        println!("{}", path.display());
        run(&bytes);
        count += 1;
    }
    assert!(count > 0, "{} is empty", folder.display());
}

#[test]
fn the_stream_corpus_keeps_the_invariants() {
    run_corpus("stream", |bytes| drop(stream::run(&stream::Op::decode(bytes))));
}

#[test]
fn the_stream_and_pipe_corpora_keep_the_invariants_of_pipes() {
    for target in ["stream", "pipe"] {
        run_corpus(target, |bytes| {
            let ops = stream::Op::decode(bytes);
            for policy in [Policy::READ_PIPE, Policy::WRITE_PIPE, Policy::WRITE_DEVICE] {
                drop(stream::run_as(policy, &ops));
            }
        });
    }
}

#[test]
fn the_interest_corpus_keeps_the_invariants() {
    run_corpus("interest", |bytes| drop(interest::run(&interest::Op::decode(bytes))));
}

#[test]
fn the_turn_corpus_keeps_the_invariants() {
    run_corpus("turn", |bytes| drop(turn::run(&turn::Op::decode(bytes))));
}

#[test]
fn the_datagram_corpus_keeps_the_invariants() {
    run_corpus("datagram", |bytes| drop(datagram::run(&datagram::Op::decode(bytes))));
}

#[test]
fn the_tls_corpus_keeps_the_invariants() {
    run_corpus("tls", |bytes| {
        let (setup, ops) = tls::Setup::decode(bytes);
        drop(tls::run(setup, &ops));
    });
}

#[test]
fn the_accept_corpus_keeps_the_invariants() {
    run_corpus("accept", |bytes| drop(accept::run(&accept::Op::decode(bytes))));
}

#[test]
fn the_coalesce_corpus_keeps_the_invariants() {
    run_corpus("coalesce", |bytes| drop(coalesce::run(&coalesce::Op::decode(bytes))));
}
