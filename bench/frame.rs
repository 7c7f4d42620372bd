//! What a frame costs the link agent: checking one that came, sealing one that goes, and the content digest.

use std::hint::black_box;

use clearway::wire::{Answer, FRAME_BYTES_MAX, Frame, PaymentRequest, Reply, Template, content_digest, decode, seal};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// As many frames as one receive buffer holds, back to back, as a busy link sends them.
const RUN_FRAMES: usize = 64;

fn sealed(template: Template, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; template.length()];
    seal(&mut bytes, template);
    bytes
}

fn decoding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/decode");
    for (name, template) in [
        ("request", PaymentRequest::TEMPLATE),
        ("reply", Reply::TEMPLATE),
        ("answer", Answer::TEMPLATE),
    ] {
        let frame = sealed(template, 0x5a);
        group.throughput(Throughput::Bytes(frame.len() as u64));
        group.bench_function(name, |bencher| bencher.iter(|| decode(black_box(&frame))));
    }
    group.finish();
}

/// Frames straddle nothing here, but lie at odd offsets, as they do behind a frame of another length.
fn decoding_a_run(criterion: &mut Criterion) {
    let mut run = vec![0u8];
    for fill in 0..RUN_FRAMES {
        run.extend_from_slice(&sealed(Template::PaymentRequest, fill as u8));
    }
    let mut group = criterion.benchmark_group("frame/decode_run");
    group.throughput(Throughput::Elements(RUN_FRAMES as u64));
    group.bench_function("64_requests", |bencher| {
        bencher.iter(|| {
            let mut rest = &black_box(&run)[1..];
            let mut frames = 0;
            while let Ok(Some((_, length))) = decode(rest) {
                rest = &rest[length..];
                frames += 1;
            }
            assert_eq!(frames, RUN_FRAMES);
        });
    });
    group.finish();
}

fn sealing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame/seal");
    for (name, template) in [("request", Template::PaymentRequest), ("answer", Template::Answer)] {
        group.throughput(Throughput::Bytes(template.length() as u64));
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || [0x5a; FRAME_BYTES_MAX],
                |bytes| seal(black_box(&mut bytes[..template.length()]), template),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn digest(criterion: &mut Criterion) {
    let frame = sealed(Template::PaymentRequest, 0x5a);
    criterion.bench_function("frame/content_digest", |bencher| {
        bencher.iter(|| content_digest(black_box(&frame)));
    });
}

criterion_group!(frames, decoding, decoding_a_run, sealing, digest);
criterion_main!(frames);
