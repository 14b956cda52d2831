use super::super::class::Class;
use super::*;

const SEEDS: std::ops::Range<u64> = 11..13;

fn series(class: Class) -> impl Iterator<Item = Series> {
    SEEDS.map(move |seed| Series::generate(class, seed, Conditions::Usual))
}

fn mean(bytes: &[f64]) -> f64 {
    bytes.iter().sum::<f64>() / bytes.len() as f64
}

/// The mean of a day, counted from 0.
fn day_mean(bytes: &[f64], day: usize) -> f64 {
    let samples = SAMPLES / DAYS as usize;
    mean(&bytes[day * samples..(day + 1) * samples])
}

#[test]
fn the_same_seed_gives_the_same_series_and_another_seed_another() {
    let make = Series::generate;
    for class in [Class::Composite, Class::LeakComposite, Class::LeakStep] {
        let first = make(class, 3, Conditions::Usual);
        assert_eq!(first, make(class, 3, Conditions::Usual), "{class:?}");
        assert_ne!(
            first.anon,
            make(class, 4, Conditions::Usual).anon,
            "{class:?}"
        );
        assert_ne!(
            first.anon,
            make(class, 3, Conditions::Shifted).anon,
            "{class:?}"
        );
    }
    let other = make(Class::FlatNoisy, 3, Conditions::Usual).anon;
    assert_ne!(make(Class::PageCache, 3, Conditions::Usual).anon, other);
}

#[test]
fn every_series_is_whole_and_within_what_a_cgroup_can_hold() {
    for class in Class::all() {
        let series = Series::generate(*class, 5, Conditions::Shifted);
        let columns = [&series.anon, &series.file, &series.kernel, &series.cpu];
        for column in columns {
            assert_eq!(column.len(), SAMPLES, "{class:?}");
            assert!(
                column
                    .iter()
                    .all(|value| value.is_finite() && *value >= 0.0)
            );
        }
        assert_eq!(series.epoch.len(), SAMPLES);
        assert!(series.epoch.is_sorted(), "{class:?}");
        for at in 0..SAMPLES {
            let unreclaimable = series.anon[at] + series.kernel[at];
            let room = (series.limit - unreclaimable).max(0.0);
            assert!(
                series.file[at] <= room + 1.0,
                "{class:?} keeps cache above the limit"
            );
        }
    }
}

#[test]
fn a_healthy_container_lives_below_its_limit_and_stops_growing() {
    for class in Class::all().iter().filter(|class| !class.leaks()) {
        for series in series(*class) {
            assert_eq!(
                (series.onset_s, series.first_oom_s),
                (None, None),
                "{class:?}"
            );
            let peak = series.anon.iter().copied().fold(0.0, f64::max);
            assert!(peak < series.limit, "{class:?}");
            // Load that rises once may do so late in the week; all else is settled by then.
            if *class != Class::LoadRamp {
                let late = day_mean(&series.anon, 6) / day_mean(&series.anon, 4);
                assert!((0.6..1.4).contains(&late), "{class:?} {late}");
            }
        }
    }
}

#[test]
fn a_leak_reaches_the_limit_when_its_rate_says() {
    for class in Class::all().iter().filter(|class| class.leaks()) {
        for series in series(*class) {
            let onset_s = series.onset_s.unwrap_or(f64::NAN);
            assert!(series.rate > 0.0, "{class:?}");
            let hours = (series.limit - series.base) / series.rate;
            let latest_s = onset_s + hours * HOUR_S;
            match series.first_oom_s {
                Some(oom_s) => assert!(oom_s > onset_s && oom_s < 1.5 * latest_s, "{class:?}"),
                // Cut by deploys, or too slow for the week.
                None => assert!(
                    *class == Class::LeakRestarts || latest_s > 0.6 * DAYS * DAY_S,
                    "{class:?} is never killed"
                ),
            }
        }
    }
}

#[test]
fn most_leaks_are_killed_within_the_week() {
    let killed = Class::all()
        .iter()
        .filter(|class| class.leaks() && **class != Class::LeakSlow)
        .flat_map(|class| series(*class))
        .filter(|series| series.first_oom_s.is_some())
        .count();
    assert!(killed * 10 >= 20 * 6, "{killed} of 20");
}

#[test]
fn a_kill_starts_a_new_epoch_at_the_base_footprint() {
    let series = Series::generate(Class::LeakLinear, 12, Conditions::Usual);
    let oom_s = series.first_oom_s.unwrap_or(f64::NAN);
    let killed = (oom_s / STEP_S) as usize;
    assert!(series.anon[killed] + series.kernel[killed] > series.limit);
    assert_eq!(series.anon[killed + 1], MIB);
    assert_eq!(series.epoch[killed + 1], series.epoch[killed] + 1);
    // A minute is the longest that it is down.
    assert!(series.anon[killed + 12] > 0.5 * series.base);
}

#[test]
fn nothing_leaks_before_the_onset() {
    for series in series(Class::LeakMidway) {
        let onset = (series.onset_s.unwrap_or_default() / STEP_S) as usize;
        assert!(series.onset_s >= Some(DAY_S) && series.onset_s <= Some(4.0 * DAY_S));
        assert!(
            series.anon[..onset]
                .iter()
                .all(|bytes| *bytes < series.limit / 1.1)
        );
    }
}

#[test]
fn the_slow_leak_is_a_mebibyte_an_hour_and_never_killed() {
    for series in series(Class::LeakSlow) {
        assert_eq!((series.rate, series.first_oom_s), (MIB, None));
        assert_eq!((series.base, series.limit), (2048.0 * MIB, 4096.0 * MIB));
        let grown = day_mean(&series.anon, 6) - day_mean(&series.anon, 1);
        assert!(
            (60.0 * MIB..180.0 * MIB).contains(&grown),
            "{}",
            grown / MIB
        );
    }
}

#[test]
fn page_cache_fills_the_limit_and_anonymous_memory_does_not_follow() {
    for series in series(Class::PageCache) {
        let last = SAMPLES - 1;
        let usage = series.anon[last] + series.kernel[last] + series.file[last];
        assert!((usage / series.limit - 1.0).abs() < 1e-9);
        let growth = day_mean(&series.anon, 6) / day_mean(&series.anon, 1);
        assert!((0.8..1.2).contains(&growth));
    }
}

#[test]
fn garbage_collection_swings_and_a_high_water_mark_does_not_come_down() {
    for series in series(Class::GcSawtooth) {
        let hour = &series.anon[SAMPLES / 2..SAMPLES / 2 + 360];
        let low = hour.iter().copied().fold(f64::MAX, f64::min);
        let high = hour.iter().copied().fold(0.0, f64::max);
        assert!((high - low) / series.base > 0.04);
    }
    for series in series(Class::Highwater) {
        assert!(day_mean(&series.anon, 6) > 0.98 * day_mean(&series.anon, 3));
    }
}

#[test]
fn deploys_restart_without_a_kill() {
    for series in series(Class::Deploys) {
        assert!(
            series
                .epoch
                .last()
                .is_some_and(|epoch| (1..10).contains(epoch))
        );
    }
    for series in series(Class::FlatNoisy) {
        assert_eq!(series.epoch.last(), Some(&0));
    }
}

#[test]
fn cpu_follows_a_daily_load() {
    for series in series(Class::Diurnal) {
        let hours: Vec<f64> = series.cpu.chunks_exact(360).map(mean).collect();
        let (low, high) = hours.iter().fold((f64::MAX, 0.0_f64), |(low, high), hour| {
            (low.min(*hour), high.max(*hour))
        });
        assert!(high / low > 1.5);
    }
}
