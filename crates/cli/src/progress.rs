//! What a fetch shows: a bar on a terminal, elsewhere a line when something begins, fails or ends.

use std::io::IsTerminal;
use std::time::Duration;

use hub::{Progress, Step};
use indicatif::{ProgressBar, ProgressStyle};

/// Draws to standard error.
pub struct Bar {
    bar: ProgressBar,
    is_terminal: bool,
}

impl Bar {
    pub fn new() -> Self {
        Self { bar: ProgressBar::hidden(), is_terminal: std::io::stderr().is_terminal() }
    }

    fn say(&self, line: &str) {
        if self.is_terminal { self.bar.suspend(|| eprintln!("{line}")) } else { eprintln!("{line}") }
    }

    fn receive(&self, file: &str, source: &str, done: u64, total: Option<u64>) {
        let size = total.map_or_else(String::new, |total| format!(" ({:.1} MB)", total as f64 / 1e6));
        let resumed = if done > 0 { format!(", resumed at {:.1} MB", done as f64 / 1e6) } else { String::new() };
        self.say(&format!("fetching {file}{size} from {source}{resumed}"));
        if self.is_terminal {
            self.bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            self.bar.set_style(style(total.is_some()));
            self.bar.reset();
            self.bar.set_length(total.unwrap_or(0));
            self.bar.set_position(done);
            self.bar.enable_steady_tick(Duration::from_millis(100));
        }
    }

    fn clear(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
        self.bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
}

fn style(total_is_known: bool) -> ProgressStyle {
    let template = match total_is_known {
        true => "  {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        false => "  {spinner} {bytes} {bytes_per_sec}",
    };
    ProgressStyle::with_template(template).expect("the template is right")
}

impl Progress for Bar {
    fn step(&self, step: Step<'_>) {
        match step {
            Step::Waiting => self.say("another process fetches this model; waiting for it"),
            Step::Trying { .. } => {}
            Step::Receiving { file, source, done, total } => self.receive(file, source, done, total),
            Step::Received { bytes } => self.bar.inc(bytes),
            Step::Retrying { reason } => self.say(&format!("trying again: {reason}")),
            Step::Verifying { file } => self.say(&format!("checking {file}")),
            Step::Stored { .. } => self.clear(),
            Step::Failed { source, reason } => {
                self.clear();
                self.say(&format!("{source}: {reason}"));
            }
        }
    }
}
