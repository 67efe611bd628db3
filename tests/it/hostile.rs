//! A short run of the hostile suite: every class, with few events. Latency is not checked here; `cargo xtask hostile`
//! measures it.

use setgate_tests::hostile::{self, Options, Stage, artefact, lift};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_class_of_attack_is_contained() {
    let options = Options { short: true, ..Options::default() };
    let report = Box::pin(hostile::run(&options)).await;
    assert!(report.is_good(), "{}\n{}", report.summary(), report.complaints());
    assert!(report.neighbour.sent > 0, "the neighbour was there");
}

/// One limit of each kind: fuel, memory, tables, host calls, log, output, upload. `cargo xtask hostile --bite` lifts
/// all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lifted_limit_is_reported_as_escaped() {
    let few = [
        "fuel_per_call",
        "memory_bytes_max",
        "table_elements_max",
        "host_calls_max",
        "log_bytes_max",
        "output_bytes_max",
        "filter_bytes_max",
        "wall_ms_max",
    ];
    for limit in few {
        let lift = lift::named(limit).expect("a limit that can be lifted");
        let report = Box::pin(hostile::run(&lift.options())).await;
        assert!(report.same_process, "with `{limit}` lifted, the machine and the host stay up");
        let escaped: Vec<_> = report.escaped().iter().map(|shown| shown.class.name).collect();
        assert_eq!(escaped, [lift.class], "with `{limit}` lifted, the suite names the class that escapes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_recompiles_no_filter() {
    let seen = artefact::restart_with(100).await;
    assert_eq!(seen, artefact::Restarted { filters: 100, ran: 100, compiled: 0, loaded: 100 });
}

#[test]
fn suite_has_each_class_once() {
    let classes = hostile::classes();
    let mut names: Vec<_> = classes.iter().map(|class| class.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), classes.len(), "a class by each name");
    for stage in [
        Stage::Upload,
        Stage::Compile,
        Stage::Artefact,
        Stage::Start,
        Stage::Run,
        Stage::Return,
        Stage::Share,
        Stage::Responses,
    ] {
        assert!(classes.iter().any(|class| class.stage == stage), "{}", stage.as_str());
    }
    for lift in lift::LIFTS {
        let class = classes.iter().find(|class| class.name == lift.class);
        let limit = class.unwrap_or_else(|| panic!("there is no class `{}`", lift.class)).answer.limit;
        assert_eq!(limit, Some(lift.limit), "the lifted limit is the one that must detect the attack");
    }
}
