//! The filter stage: a full call of the sandbox, compared in turns with the bare engine, with the same function
//! compiled natively, and with the same function on a peer.

mod bare;
mod input;
mod ours;
mod peers;
mod script;

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bench_guest::acts::{ACTS, act};
use bytes::Bytes;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};
use metrics_util::MetricKindMask;
use setgate_domain::id::Digest;
use setgate_sandbox::{BUCKETS, engine_config};

use crate::cores::{Timed, on_all, on_one, repeat_on};
use crate::report::{Bound, Sheet, median};
use crate::{Mode, place};
use bare::Bare;
use input::Input;
use ours::Ours;
use peers::Peers;

const SECTION: &str = "filter";
/// Sizes of the events, and their names in the table.
const SIZES: [(usize, &str); 3] = [(800, "0.8 KB"), (5_000, "5 KB"), (50_000, "50 KB")];
/// Concurrent calls per core: a host has many deliveries in flight.
const AT_ONCE: usize = 16;
/// Fuel of a call: enough for an interpreter and 50 KB, which exceeds a tenant's default.
const FUEL: u64 = 2_000_000_000;
/// As in a host: how long an idle series is retained, and the interval of the recorder's upkeep.
const SERIES_IDLE: Duration = Duration::from_secs(600);
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

const OF_BARE: &str = "sandbox call / bare wasmtime fresh call, 0.8 KB";
const PER_SECOND: &str = "fresh-instance pass verdict, one core";
const PATCH: &str = "patch on 50 KB against replace on 50 KB, guest that need not parse its whole input";
const OF_REPLACE: Bound = Bound::AtMost(0.5);

/// Number and duration of rounds, and sizes of the events.
#[derive(Debug, Clone, Copy)]
struct Turns {
    rounds: usize,
    lasts: Duration,
    sizes: &'static [(usize, &'static str)],
    /// Whether each act and size has a separate filter, which has to be compiled once on each machine.
    apart: bool,
}

/// Measures the section.
pub(crate) async fn measure(sheet: &mut Sheet, mode: Mode) -> anyhow::Result<()> {
    count_as_a_host_does();
    let turns = match mode {
        Mode::Quick => Turns { rounds: 1, lasts: Duration::from_millis(5), sizes: &SIZES[..1], apart: false },
        _ => Turns { rounds: 5, lasts: Duration::from_millis(80), sizes: &SIZES, apart: true },
    };
    let peer = peers::program().map_err(|why| eprintln!("  not measured: the peers: {why}")).ok();
    // Blocks: runs on separate threads, some of which are pinned to a core.
    tokio::task::block_in_place(|| {
        // Stored for later runs: an interpreter takes minutes to compile.
        let folder = place::folder().join("compiled");
        let wasm = built("bench-guest.wasm")?;
        // Compiled once, on all cores, and called from every measurement.
        let bare = on_all(|| Ok(Bare::new(&engine_config(&ours::options(&folder)), &wasm)?))?;
        let contest = |cores| Contest::new(&folder, &wasm, &bare, cores, turns, peer.as_deref());
        let one = on_one(|| contest(1)?.measure())?;
        one.note(sheet, "one core");
        one.targets(sheet)?;
        let cores = std::thread::available_parallelism()?.get();
        if cores > 1 {
            let all = on_all(|| contest(cores)?.measure())?;
            all.note(sheet, "all cores");
        }
        match script::guest(mode) {
            Ok(wasm) => script::measure(sheet, turns, &folder, &wasm),
            Err(why) => {
                eprintln!("  not measured: the guest in JavaScript: {why}");
                Ok(())
            }
        }
    })
}

/// The candidates that are compared.
struct Contest<'a> {
    bare: &'a Bare,
    ours: Arc<Ours>,
    wasm: Bytes,
    peers: Option<Peers>,
    cores: usize,
    turns: Turns,
}

/// The results of one round of a case.
struct Round {
    native: Timed,
    bare: Timed,
    ours: Timed,
    /// Sequential calls.
    alone: Timed,
    peer: Option<peers::Answer>,
}

impl<'a> Contest<'a> {
    /// Must be called on a thread that is pinned as required by the measurement.
    fn new(
        folder: &Path,
        wasm: &Bytes,
        bare: &'a Bare,
        cores: usize,
        turns: Turns,
        peer: Option<&Path>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            bare,
            ours: Arc::new(Ours::new(ours::options(folder), cores)?),
            wasm: wasm.clone(),
            peers: peer.map(|program| Peers::start(program, &place::folder().join("peers-guest.wasm"))).transpose()?,
            cores,
            turns,
        })
    }

    /// Runs each case once per round.
    fn measure(&mut self) -> anyhow::Result<Shown> {
        let mut cases = Vec::new();
        for (bytes, size) in self.turns.sizes {
            for act in ACTS {
                // A separate filter with a single act, because the host adapts to the duration of a filter's last
                // calls.
                let name = if self.turns.apart { format!("{act} {size}") } else { "all acts".to_owned() };
                let filter = self.ours.take_in(ours::named(&self.wasm, &name))?;
                cases.push((Arc::new(Input::new(act, *bytes)?), *size, filter, Vec::new()));
            }
        }
        for _ in 0..self.turns.rounds {
            for (input, size, filter, rounds) in &mut cases {
                let round = self.round(*filter, input).with_context(|| format!("{}, {size}", input.act))?;
                rounds.push(round);
            }
        }
        let cases = cases.into_iter().map(|(input, size, _, rounds)| (input, size, rounds)).collect();
        Ok(Shown { cores: self.cores, turns: self.turns, cases })
    }

    fn round(&mut self, filter: Digest, input: &Arc<Input>) -> anyhow::Result<Round> {
        let (cores, lasts) = (self.cores, self.turns.lasts);
        let claims = input.set.text.as_str();
        let native = || act(black_box(input.act), black_box(claims)).map(drop).map_err(anyhow::Error::msg);
        let event = bare::event(input);
        let peer = self.peers.as_mut().map(|peers| peers.repeat(input.act, claims, cores, lasts)).transpose()?;
        Ok(Round {
            native: repeat_on(cores, lasts, native)?,
            bare: repeat_on(cores, lasts, || Ok(self.bare.call(&event)?))?,
            ours: self.ours.repeat(filter, input, cores * AT_ONCE, false, lasts)?,
            alone: self.ours.repeat(filter, input, 1, false, lasts)?,
            peer,
        })
    }
}

/// All cases with their rounds.
struct Shown {
    cores: usize,
    turns: Turns,
    cases: Vec<(Arc<Input>, &'static str, Vec<Round>)>,
}

impl Shown {
    /// Reports the CPU time per call on one core, and calls per second on all cores.
    fn note(&self, sheet: &mut Sheet, cores: &str) {
        for (input, size, rounds) in &self.cases {
            let mut row = |what: &str, unit: &str, of: &dyn Fn(&Round) -> Option<f64>| {
                let values: Option<Vec<f64>> = rounds.iter().map(of).collect();
                if let Some(values) = values {
                    sheet.figure(SECTION, &format!("{cores}: {}, {size}: {what}", input.act), unit, &values);
                }
            };
            if self.cores == 1 {
                row("native", "us", &|round| Some(round.native.cpu_us()));
                row("bare engine", "us", &|round| Some(round.bare.cpu_us()));
                row("sandbox", "us", &|round| Some(round.ours.cpu_us()));
                row("sandbox, one after the other", "us", &|round| Some(round.alone.us()));
                row("extism, a plug-in a call", "us", &|round| Some(round.peer.as_ref()?.fresh_cpu_us));
                row("extism, one plug-in", "us", &|round| Some(round.peer.as_ref()?.kept_cpu_us));
            } else {
                row("native", "calls/s", &|round| Some(round.native.per_second()));
                row("bare engine", "calls/s", &|round| Some(round.bare.per_second()));
                row("sandbox", "calls/s", &|round| Some(round.ours.per_second()));
                row("extism, a plug-in a call", "calls/s", &|round| Some(round.peer.as_ref()?.fresh_per_second));
                row("extism, one plug-in", "calls/s", &|round| Some(round.peer.as_ref()?.kept_per_second));
            }
            row("sandbox / bare engine", "", &|round| Some(round.of_bare()));
            row("sandbox / native", "", &|round| Some(round.ours.cpu_us() / round.native.cpu_us()));
            row("sandbox / extism", "", &|round| Some(round.ours.cpu_us() / round.peer.as_ref()?.fresh_cpu_us));
        }
    }

    fn targets(&self, sheet: &mut Sheet) -> anyhow::Result<()> {
        let [(small, small_size), .., (large, large_size)] = SIZES;
        debug_assert!(small < large);
        let pass = self.rounds("pass", small_size)?;
        let of_bare = median(&pass.iter().map(Round::of_bare).collect::<Vec<_>>());
        let bare = median(&pass.iter().map(|round| round.bare.cpu_us()).collect::<Vec<_>>());
        sheet.target(OF_BARE, "", Bound::AtMost(1.15), of_bare, Some(bare));
        let per_second = median(&pass.iter().map(|round| round.ours.per_second()).collect::<Vec<_>>());
        sheet.target(PER_SECOND, "calls/s", Bound::AtLeast(50_000.0), per_second, Some(1e6 / bare));
        if !self.turns.sizes.iter().any(|(_, size)| *size == large_size) {
            sheet.unmeasured(PATCH, "", OF_REPLACE, "a quick run has no events of 50 KB");
            return Ok(());
        }
        let (patch, replace) = (self.rounds("patch", large_size)?, self.rounds("replace", large_size)?);
        let ratios: Vec<_> =
            patch.iter().zip(replace).map(|(patch, replace)| patch.ours.cpu_us() / replace.ours.cpu_us()).collect();
        let baseline = median(&replace.iter().map(|round| round.ours.cpu_us()).collect::<Vec<_>>());
        let ratio = sheet.figure(SECTION, "one core: patch / replace, 50 KB", "", &ratios);
        sheet.target(PATCH, "", OF_REPLACE, ratio, Some(baseline));
        Ok(())
    }

    fn rounds(&self, act: &str, size: &str) -> anyhow::Result<&[Round]> {
        let mut cases = self.cases.iter();
        let found = cases.find(|(input, of, _)| input.act == act && *of == size);
        Ok(&found.context("every act is measured in every size")?.2)
    }
}

impl Round {
    fn of_bare(&self) -> f64 {
        self.ours.cpu_us() / self.bare.cpu_us()
    }
}

/// Installs a recorder for counters and histograms as in a host: without one, metrics would cost nothing here.
fn count_as_a_host_does() {
    let mask = MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM;
    let mut builder = PrometheusBuilder::new().idle_timeout(mask, Some(SERIES_IDLE));
    for (name, bounds) in BUCKETS {
        let name = Matcher::Full((*name).to_owned());
        builder = builder.set_buckets_for_metric(name, bounds).expect("every list of bounds has some");
    }
    let recorder = builder.build_recorder();
    let recorded = recorder.handle();
    if metrics::set_global_recorder(recorder).is_ok() {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_EVERY).await;
                recorded.run_upkeep();
            }
        });
    }
}

fn built(name: &str) -> anyhow::Result<Bytes> {
    let file = place::folder().join(name);
    let read = std::fs::read(&file).with_context(|| format!("{}: run `cargo xtask guests --bench`", file.display()))?;
    Ok(read.into())
}
