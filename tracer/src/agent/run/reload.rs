//! SIGHUP: what of the configuration file a running agent takes over.

use crate::{config::reload::Reloaded, host::escape};

use super::Agent;

const MOST_CHARS: usize = 400;

impl Agent {
    /// Takes over what changed and says what cannot be. A file that cannot be used changes nothing.
    pub(super) fn reload(&mut self) {
        let Some(reloader) = &mut self.config.reloader else {
            log::info!("SIGHUP: this command has no configuration file: nothing to reload");
            return;
        };
        match reloader.reload() {
            Ok(None) => log::info!("SIGHUP: there is no configuration file: nothing to reload"),
            Ok(Some(reloaded)) => self.take_over(reloaded),
            Err(error) => log::error!("the configuration stays as it was:\n{error}"),
        }
    }

    fn take_over(&mut self, reloaded: Reloaded) {
        let path = escape::display(reloaded.path.as_os_str().as_encoded_bytes(), MOST_CHARS);
        match reloaded.changed.as_slice() {
            [] => log::info!("{path}: nothing changed that is taken over"),
            changed => log::info!("{path}: took over {}", changed.join(", ")),
        }
        if !reloaded.needs_restart.is_empty() {
            let keys = reloaded.needs_restart.join(", ");
            log::warn!("{path}: needs a restart: {keys}");
        }
        self.outputs.tell_only(reloaded.cgroup);
        self.witness.set_stall_after(reloaded.stall_after);
        // A scale that changed would not go with what is known: it needs a restart.
        if let (Some(judging), Some(thresholds)) = (&mut self.judging, reloaded.thresholds) {
            judging.set_thresholds(thresholds);
        }
        self.actions.set_rules(reloaded.rules);
    }
}
