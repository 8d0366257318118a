//! Progress on standard error: on a terminal only, and only of what takes longer than a second.

use std::io::IsTerminal;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Faster work shows no progress.
const PATIENCE: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(250);

/// Progress of one piece of work; it vanishes with the value.
pub struct Progress {
    bar: ProgressBar,
    /// Its end tells the waiting thread that the work is done.
    done: Option<Sender<()>>,
    shower: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of work whose length is known: `unit` is what is counted.
    pub fn counted(total: u64, unit: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        Progress::start(bar, &format!("{{bar:30}} {{pos}} of {{len}} {unit}, {{eta}} left"))
    }

    /// Of work whose length is not known.
    pub fn busy(with: &str) -> Progress {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        Progress::start(bar, &format!("{{spinner}} {with} ({{elapsed}})"))
    }

    fn start(bar: ProgressBar, template: &str) -> Progress {
        bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_bar()));
        if !std::io::stderr().is_terminal() {
            return Progress { bar, done: None, shower: None };
        }
        let (done, wait) = channel();
        let shown = bar.clone();
        let shower = std::thread::spawn(move || show_after_patience(&shown, &wait));
        Progress { bar, done: Some(done), shower: Some(shower) }
    }

    /// Counts what has been done.
    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
    }
}

fn show_after_patience(bar: &ProgressBar, done: &Receiver<()>) {
    if done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
        bar.set_draw_target(ProgressDrawTarget::stderr());
        bar.enable_steady_tick(TICK);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done = None;
        if let Some(shower) = self.shower.take() {
            let _ = shower.join(); // it never panics, and there is nothing to do if it did
        }
        self.bar.finish_and_clear();
    }
}
