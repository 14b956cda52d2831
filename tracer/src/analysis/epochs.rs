//! What is remembered of a container's earlier lives: a leak that restarts cut is still a leak.

use serde::{Deserialize, Serialize};

/// Memory across the epochs of one signal.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Epochs {
    plateau: f64,
    growing: u8,
    leaking: u8,
}

/// How an epoch ended.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    /// It lasted long enough for its shape to be seen.
    pub judged: bool,
    /// Growth in the shape of a leak was seen lately.
    pub growing: bool,
    /// It was suspected or confirmed.
    pub leaking: bool,
    /// Highest floor of the last hours, in bytes, unless it still rose.
    pub plateau: Option<f64>,
}

impl Epochs {
    /// Takes the end of an epoch; one that was cut too early says nothing.
    pub fn end(&mut self, ending: &Ending) {
        if !ending.judged {
            return;
        }
        let counted = |count: u8, on: bool| if on { count.saturating_add(1) } else { 0 };
        self.growing = counted(self.growing, ending.growing || ending.leaking);
        self.leaking = counted(self.leaking, ending.leaking);
        if let Some(plateau) = ending.plateau.filter(|plateau| plateau.is_finite()) {
            self.plateau = self.plateau.max(plateau);
        }
    }

    /// Highest floor that a calm epoch reached, in bytes; 0 when there was none.
    pub fn plateau(&self) -> f64 {
        self.plateau
    }

    /// Epochs in a row that ended growing.
    pub fn growing(&self) -> u8 {
        self.growing
    }

    /// Epochs in a row that ended suspected or confirmed.
    pub fn leaking(&self) -> u8 {
        self.leaking
    }
}
