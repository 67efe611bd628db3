//! Runs the function of `bench/guest` on engines that the host does not use: currently extism, with its own wasmtime.
//!
//! `bench-peers PLUGIN.wasm` reads lines such as `{"act": "pass", "claims": "...", "millis": 80, "threads": 1}` and
//! answers each with `{"fresh_per_second": ..., "fresh_cpu_us": ..., "kept_per_second": ..., "kept_cpu_us": ...}`:
//! calls per second over all threads, and CPU microseconds per call.

use std::io::{BufRead as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use cpu_time::ThreadTime;
use extism::{Manifest, Plugin, PluginBuilder, Wasm};
use serde::{Deserialize, Serialize};

/// The same allocator as in the bench and the host.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Fuel and memory (pages of 64 KiB) of a call: the default quota of a tenant on the host.
const FUEL: u64 = 50_000_000;
const PAGES_MAX: u32 = 512;
/// Calls between two reads of the clock.
const BATCH: u64 = 8;

#[derive(Deserialize)]
struct Ask {
    act: String,
    claims: String,
    millis: u64,
    threads: usize,
}

#[derive(Serialize)]
struct Answer {
    fresh_per_second: f64,
    fresh_cpu_us: f64,
    kept_per_second: f64,
    kept_cpu_us: f64,
}

fn main() -> anyhow::Result<()> {
    let file =
        std::env::args().nth(1).context("usage: bench-peers PLUGIN.wasm, and a line of JSON for each measurement")?;
    let manifest = Manifest::new([Wasm::file(&file)]).with_memory_max(PAGES_MAX);
    // Extism's own limits, and a pool of instances, which its users can set up although extism has none.
    let compiled = PluginBuilder::new(manifest)
        .with_fuel_limit(FUEL)
        .with_wasmtime_config(pooled())
        .with_cache_disabled()
        .compile()?;
    for line in std::io::stdin().lock().lines() {
        let ask: Ask = serde_json::from_str(&line?)?;
        let input = format!("{}\n{}", ask.act, ask.claims);
        let lasts = Duration::from_millis(ask.millis);
        let fresh = || {
            let mut plugin = Plugin::new_from_compiled(&compiled)?;
            call(&mut plugin, &input)
        };
        let kept = || {
            let mut plugin = Plugin::new_from_compiled(&compiled)?;
            repeat(lasts, || call(&mut plugin, &input))
        };
        let (fresh_per_second, fresh_cpu_us) = on(ask.threads, || repeat(lasts, fresh))?;
        let (kept_per_second, kept_cpu_us) = on(ask.threads, kept)?;
        let answer = Answer { fresh_per_second, fresh_cpu_us, kept_per_second, kept_cpu_us };
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
        out.flush()?;
    }
    Ok(())
}

fn pooled() -> wasmtime::Config {
    let mut config = wasmtime::Config::new();
    let mut pool = wasmtime::PoolingAllocationConfig::new();
    pool.max_memory_size(PAGES_MAX as usize * 65_536);
    if wasmtime::PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(wasmtime::Enabled::Yes).linear_memory_keep_resident(512 << 10);
    }
    config.allocation_strategy(wasmtime::InstanceAllocationStrategy::Pooling(pool));
    config
}

fn call(plugin: &mut Plugin, input: &str) -> anyhow::Result<()> {
    let output: &[u8] = plugin.call("process", input)?;
    ensure!(!output.is_empty(), "the plug-in gave no verdict");
    Ok(())
}

/// Calls per second, number of calls, and the thread's CPU microseconds for them.
fn repeat(lasts: Duration, mut call: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<(f64, f64, f64)> {
    let (began_at, cpu) = (Instant::now(), ThreadTime::now());
    let mut calls = 0;
    loop {
        for _ in 0..BATCH {
            call()?;
        }
        calls += BATCH;
        let elapsed = began_at.elapsed();
        if elapsed >= lasts {
            let calls = calls as f64;
            return Ok((calls / elapsed.as_secs_f64(), calls, cpu.elapsed().as_secs_f64() * 1e6));
        }
    }
}

/// Runs on several threads at once: calls per second over all, and CPU microseconds per call.
fn on(threads: usize, work: impl Fn() -> anyhow::Result<(f64, f64, f64)> + Sync) -> anyhow::Result<(f64, f64)> {
    thread::scope(|scope| {
        let working: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(&work)).collect();
        let (mut per_second, mut calls, mut cpu) = (0.0, 0.0, 0.0);
        for thread in working {
            let one = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
            (per_second, calls, cpu) = (per_second + one.0, calls + one.1, cpu + one.2);
        }
        Ok((per_second, cpu / calls))
    })
}
