//! The classes of container memory that the evaluation knows, and which of them leak.
//! Must not know how a class is simulated: see `series`.

use clap::ValueEnum;

/// A way in which the memory of a container behaves over a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Class {
    /// A level with noise
    FlatNoisy,
    /// Garbage collection, one generation
    GcSawtooth,
    /// Garbage collection with a slow old generation
    GcTwolevel,
    /// A warm-up of minutes to hours, then a plateau
    WarmupPlateau,
    /// A cache that fills ever slower
    CacheExp,
    /// A cache that fills in a straight line up to its bound
    CacheLinear,
    /// Memory that follows a daily load
    Diurnal,
    /// Memory that follows steps of load
    LoadSteps,
    /// Bursts of batch work
    Bursts,
    /// Fragmentation that grows as the logarithm of time
    FragLog,
    /// Page cache that fills the limit
    PageCache,
    /// A level that wanders but returns
    OuDrift,
    /// An allocator that keeps the most that was ever needed
    Highwater,
    /// Deploys, each with a warm-up
    Deploys,
    /// A load that rises once and stays
    LoadRamp,
    /// Garbage collection, bursts, drift and deploys together
    Composite,
    /// A constant leak
    LeakLinear,
    /// A leak per request under a daily load
    LeakRequestDiurnal,
    /// A leak below garbage collection
    LeakSawtooth,
    /// A leak in rare steps
    LeakStep,
    /// A leak that starts after days
    LeakMidway,
    /// A leak cut by regular deploys
    LeakRestarts,
    /// 1 MiB per hour in 2 GiB with 20 MiB of noise
    #[value(name = "leak_slow_1MBh")]
    LeakSlow,
    /// A leak on top of a daily load
    LeakDiurnalBg,
    /// A leak hidden at first by a warm-up
    LeakWarmup,
    /// A leak that gets faster
    LeakAccel,
    /// A leak that starts after days below everything of `composite`
    LeakComposite,
}

impl Class {
    /// Every class, healthy ones first.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Whether a container of this class runs out of memory sooner or later.
    pub fn leaks(self) -> bool {
        self >= Self::LeakLinear
    }

    /// Whether the load of the class is always a daily one.
    pub fn is_daily(self) -> bool {
        matches!(
            self,
            Self::Diurnal
                | Self::LeakRequestDiurnal
                | Self::LeakDiurnalBg
                | Self::Composite
                | Self::LeakComposite
        )
    }

    /// Whether the leak runs at one rate from onset on, so that an estimate of it can be judged.
    pub fn has_constant_rate(self) -> bool {
        self.leaks() && !matches!(self, Self::LeakAccel | Self::LeakRequestDiurnal)
    }

    /// The name on the command line and in the tables.
    pub fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_healthy_and_eleven_leaking_classes() {
        let leaking = Class::all().iter().filter(|class| class.leaks()).count();
        assert_eq!((Class::all().len() - leaking, leaking), (16, 11));
        assert_eq!(Class::LeakSlow.name(), "leak_slow_1MBh");
        assert_eq!(Class::GcTwolevel.name(), "gc_twolevel");
    }
}
