//! Every threshold of the analysis, once: field, meaning, default. Owns no decision.

use serde::{Deserialize, Serialize};

/// A row of [`Thresholds::TABLE`]: what an option of this name means.
#[derive(Debug, Clone, Copy)]
pub struct Threshold {
    /// Name of the field and of the option.
    pub name: &'static str,
    /// What it means, with its unit.
    pub doc: &'static str,
    /// The default, chosen on design series.
    pub default: f64,
    get: fn(&Thresholds) -> f64,
    set: fn(&mut Thresholds, f64),
}

/// Why a threshold was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// No threshold has this name.
    #[error("no threshold is called {0:?}")]
    Unknown(String),
    /// Not a finite number of at least 0, or 0 where that cannot be.
    #[error("{name} takes a finite number {bound}")]
    Value {
        /// The threshold.
        name: &'static str,
        /// What it takes.
        bound: &'static str,
    },
}

macro_rules! thresholds {
    ($($(#[doc = $doc:literal])+ $name:ident = $default:literal;)+) => {
        /// The thresholds of the analysis. "Minutes" are minutes of analysis: see `time_scale`.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Thresholds {
            $($(#[doc = $doc])+ pub $name: f64,)+
        }

        impl Default for Thresholds {
            fn default() -> Self {
                Thresholds { $($name: $default,)+ }
            }
        }

        impl Thresholds {
            /// Every threshold with its meaning and default, for options and documentation.
            pub const TABLE: &'static [Threshold] = &[
                $(Threshold {
                    name: stringify!($name),
                    doc: concat!($($doc),+),
                    default: $default,
                    get: |t| t.$name,
                    set: |t, value| t.$name = value,
                },)+
            ];
        }
    };
}

thresholds! {
    /// Minutes of analysis to a minute of the clock: 60 judges minutes as if they were hours.
    time_scale = 1.0;
    /// Mann–Kendall Z (autocorrelation taken out) from which floors have a trend.
    trend_z = 3.5;
    /// Growth must reach the limit within so many windows of an hour.
    horizon_1h = 2.0;
    /// Growth must reach the limit within so many windows of 24 hours.
    horizon_24h = 4.0;
    /// Growth must reach the limit within so many windows of 7 days.
    horizon_7d = 60.0;
    /// Headroom where there is no limit, as a share of the present level.
    assumed_headroom = 1.0;
    /// Least growth in a window, in MiB.
    growth_mib = 2.0;
    /// Least growth in a window, as a share of the floor.
    growth_share = 0.005;
    /// Least growth in a window, in robust deviations of the residuals.
    growth_sigma = 2.0;
    /// Blocks that a window needs.
    blocks = 12.0;
    /// Blocks that the window of 36-minute blocks needs.
    blocks_36m = 15.0;
    /// Slope of the last half, as a share of that of the first half, below which growth slows down.
    slowing = 0.5;
    /// Slope in a window, as a share of that since the start before it, below which growth fades.
    fading = 0.2;
    /// Squared error of a line over that of the best saturating curve, above which growth saturates.
    saturating = 1.3;
    /// Deviations by which a floor must exceed every earlier one.
    record_sigma = 2.0;
    /// Share of the growth by which a floor must exceed every earlier one.
    record_share = 0.35;
    /// Relative load growth over relative memory growth, from which load explains it.
    load_share = 0.8;
    /// Error of a line in time over that of a line in load, from which load explains growth of a day.
    load_fit = 1.2;
    /// Time for verification, as a share of the window.
    verify_share = 0.15;
    /// Share of the predicted growth that verification asks for.
    verify_growth = 0.5;
    /// Minutes to the limit below which nothing is waited for.
    urgent_minutes = 15.0;
    /// How many times more a growth must weigh that never had a calm time before it.
    young = 4.0;
    /// How many times more such a growth must weigh to be suspected.
    young_suspected = 1.5;
    /// Factor on the horizon for each earlier epoch in a row that ended growing.
    epochs_growing = 1.5;
    /// Cap on the lag-1 correlation taken out of the variance of the trend.
    autocorrelation_cap = 0.5;
    /// Minutes left out after a start.
    start_minutes = 3.0;
    /// Unreclaimable memory over limit from which the limit is near.
    near_limit_on = 0.9;
    /// Unreclaimable memory over limit below which it no longer is.
    near_limit_off = 0.85;
    /// Minutes above `near_limit_on` (below `near_limit_off`) before the signal changes.
    near_limit_minutes = 3.0;
    /// Share of time stalled on memory that bears out a near limit.
    near_limit_stall = 0.01;
    /// MiB reclaimed a minute that bear out a near limit.
    near_limit_reclaim_mib = 16.0;
}

impl Thresholds {
    /// Sets the threshold called `name`.
    ///
    /// # Errors
    /// An unknown name, a value that is not finite or negative, and 0 for `time_scale`.
    pub fn set(&mut self, name: &str, value: f64) -> Result<(), ThresholdError> {
        let row = Self::TABLE
            .iter()
            .find(|row| row.name == name)
            .ok_or_else(|| ThresholdError::Unknown(name.to_owned()))?;
        let positive = matches!(
            row.name,
            "time_scale" | "horizon_1h" | "horizon_24h" | "horizon_7d" | "young"
        );
        if !value.is_finite() || value < 0.0 || (positive && value == 0.0) {
            let bound = if positive { "above 0" } else { "of at least 0" };
            return Err(ThresholdError::Value {
                name: row.name,
                bound,
            });
        }
        (row.set)(self, value);
        Ok(())
    }

    /// Milliseconds of the clock to a minute of analysis.
    pub fn minute_ms(&self) -> f64 {
        let scaled = 60_000.0 / self.time_scale;
        if scaled.is_finite() {
            scaled.clamp(1.0, 1e12)
        } else {
            60_000.0
        }
    }

    /// Name and value of each threshold.
    pub fn values(&self) -> impl Iterator<Item = (&'static str, f64)> + '_ {
        Self::TABLE.iter().map(|row| (row.name, (row.get)(self)))
    }
}
